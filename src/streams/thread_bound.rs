//! [`ThreadBound`]: a value that is `Send` for the compiler, and stays on its thread.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use send_wrapper::SendWrapper;

/// A value for libraries that ask for `Send` or `Sync`, although everything runs on one thread. It
/// has the traits of the value: streams, executors, futures.
///
/// # Panics
/// Any use on another thread than the one that made it panics, and so does a drop there.
/// [`is_here`](Self::is_here) does not.
///
/// ```
/// use std::rc::Rc;
/// use ropewalk::streams::ThreadBound;
///
/// fn wants_send(value: impl Send + 'static) -> bool {
///     drop(value);
///     true
/// }
/// assert!(wants_send(ThreadBound::new(Rc::new(1))));
/// ```
#[derive(Clone)]
pub struct ThreadBound<T>(SendWrapper<T>);

impl<T> ThreadBound<T> {
    /// Binds a value to the present thread.
    pub fn new(value: T) -> Self {
        Self(SendWrapper::new(value))
    }

    /// Returns `true` on the value's thread.
    pub fn is_here(&self) -> bool {
        self.0.valid()
    }

    /// Returns the value.
    pub fn into_inner(self) -> T {
        self.0.take()
    }
}

impl<T> Deref for ThreadBound<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for ThreadBound<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for ThreadBound<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_here() {
            f.debug_tuple("ThreadBound").field(&**self).finish()
        } else {
            f.write_str("ThreadBound(<on another thread>)")
        }
    }
}

impl<T: Future + Unpin> Future for ThreadBound<T> {
    type Output = T::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T::Output> {
        Pin::new(&mut **self).poll(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ThreadBound<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut **self).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ThreadBound<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut **self).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut **self).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut **self).poll_close(cx)
    }
}
