//! Work that is not wanted any more: who asks for it says how to see that, and every loop over files and bytes looks.
//!
//! Such work is one thread's from its start to its end, through many layers of this crate, and most of them have no say
//! in whether it goes on: the question belongs to the thread, and not to their signatures. Work that is done in a thread
//! without one is never stopped.

use crate::error::{Error, Result};
use std::{cell::RefCell, io, rc::Rc};

type Question = Rc<dyn Fn() -> bool>;

thread_local! {
    static QUESTION: RefCell<Option<Question>> = const { RefCell::new(None) };
}

/// Does `work`, which ends with [`Error::Stopped`] soon after `stop` says yes: at the next file, or within some
/// hundred kilobytes of one. `stop` is asked often, and answers at once.
pub fn unless<T>(stop: impl Fn() -> bool + 'static, work: impl FnOnce() -> T) -> T {
    /// Gives the thread its former question back, also when the work panics.
    struct Before(Option<Question>);
    impl Drop for Before {
        fn drop(&mut self) {
            QUESTION.set(self.0.take());
        }
    }
    let _before = Before(QUESTION.replace(Some(Rc::new(stop))));
    work()
}

/// Is the work of this thread wanted?
///
/// # Errors
/// It is not.
pub fn check() -> Result<()> {
    let question = QUESTION.with_borrow(Clone::clone);
    if question.is_some_and(|stop| stop()) { Err(Error::Stopped) } else { Ok(()) }
}

/// [`check`] among calls of the kernel.
pub(crate) fn check_io() -> io::Result<()> {
    check().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_that_of_the_innermost_work() {
        assert!(check().is_ok());
        unless(
            || true,
            || {
                assert!(check().unwrap_err().is_stopped());
                assert!(check_io().is_err());
                unless(|| false, || assert!(check().is_ok()));
                assert!(check().is_err());
                std::thread::spawn(|| assert!(check().is_ok())).join().unwrap();
            },
        );
        assert!(check().is_ok());
    }
}
