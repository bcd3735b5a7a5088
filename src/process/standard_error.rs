//! [`StandardErrorBehavior`]: the standard error of a process that is the peer of a connection.

use super::command::ChildDescriptor;

/// The standard error of a process that is the peer of a connection (Twisted:
/// `StandardErrorBehavior`). See [`ProcessEndpoint`](crate::endpoints::ProcessEndpoint).
///
/// ```
/// use ropewalk::process::StandardErrorBehavior;
///
/// assert_eq!(StandardErrorBehavior::default(), StandardErrorBehavior::Log);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StandardErrorBehavior {
    /// Its lines are logged, at the level of information. A line that arrives in parts is logged in
    /// parts.
    #[default]
    Log,
    /// It is dropped.
    Drop,
    /// It is the standard error of this program. (Twisted has no such value.)
    Inherit,
}

impl StandardErrorBehavior {
    pub(crate) fn descriptor(self) -> ChildDescriptor {
        match self {
            Self::Log => ChildDescriptor::Read,
            Self::Drop => ChildDescriptor::Null,
            Self::Inherit => ChildDescriptor::Number(2),
        }
    }
}
