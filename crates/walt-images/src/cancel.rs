//! Cancellation of long work on layers: [`when`] runs work with a condition that cancels it, and every loop over files
//! and bytes calls [`check`].
//!
//! The condition belongs to the thread, not to signatures: such work stays on one thread from start to end and passes
//! through many functions that do not care whether it is cancelled. Work on a thread without a condition is never
//! cancelled.

use crate::error::{Error, Result};
use std::{cell::RefCell, io, rc::Rc};

type Condition = Rc<dyn Fn() -> bool>;

thread_local! {
    static CONDITION: RefCell<Option<Condition>> = const { RefCell::new(None) };
}

/// Runs `work`. It fails with [`Error::Cancelled`] soon after `is_cancelled` returns true: at the next file, or within a
/// few hundred kilobytes of a large one. `is_cancelled` is called often and must return at once.
pub fn when<T>(is_cancelled: impl Fn() -> bool + 'static, work: impl FnOnce() -> T) -> T {
    /// Restores the previous condition of the thread, also when the work panics.
    struct Before(Option<Condition>);
    impl Drop for Before {
        fn drop(&mut self) {
            CONDITION.set(self.0.take());
        }
    }
    let _before = Before(CONDITION.replace(Some(Rc::new(is_cancelled))));
    work()
}

/// Fails if the work of this thread has been cancelled.
///
/// # Errors
/// [`Error::Cancelled`].
pub fn check() -> Result<()> {
    let condition = CONDITION.with_borrow(Clone::clone);
    if condition.is_some_and(|is_cancelled| is_cancelled()) { Err(Error::Cancelled) } else { Ok(()) }
}

/// [`check`] for functions that return I/O errors.
pub(crate) fn check_io() -> io::Result<()> {
    check().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_condition_counts() {
        assert!(check().is_ok());
        when(
            || true,
            || {
                assert!(check().unwrap_err().is_cancelled());
                assert!(check_io().is_err());
                when(|| false, || assert!(check().is_ok()));
                assert!(check().is_err());
                std::thread::spawn(|| assert!(check().is_ok())).join().unwrap();
            },
        );
        assert!(check().is_ok());
    }
}
