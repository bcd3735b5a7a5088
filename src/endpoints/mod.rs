//! Strings that say where to listen and where to connect (Twisted: `twisted.internet.endpoints`).

mod arguments;
mod description;

pub use self::arguments::{Argument, Arguments, TcpClientSpec, TcpServerSpec};
pub use self::description::{Description, DescriptionError, DescriptionErrorKind, Field, quote_string_argument};
