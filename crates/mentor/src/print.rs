//! Standard output and standard error that may go away: `head` had enough, a terminal was closed.
//!
//! `println!` panics then, and a training would die of a line that nobody reads. Here a reader that is gone is no
//! error: what is printed is dropped, and the command goes on to its end. Any other failure of standard output (a full
//! disk) is kept, and becomes the error of the command.

use std::fmt::Arguments;
use std::io::{Error, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

static FAILED: Mutex<Option<Error>> = Mutex::new(None);

/// Prints a line to standard output.
macro_rules! say {
    ($($text:tt)*) => { $crate::print::out(format_args!($($text)*)) };
}

/// Prints a line to standard error.
macro_rules! note {
    ($($text:tt)*) => { $crate::print::err(format_args!($($text)*)) };
}

pub(crate) use {note, say};

pub(crate) fn out(line: Arguments<'_>) {
    let Err(error) = writeln!(std::io::stdout(), "{line}") else { return };
    if !is_gone(&error) {
        FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

pub(crate) fn err(line: Arguments<'_>) {
    // There is no other place to say it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Why standard output lacks something that somebody waits for.
pub(crate) fn failure() -> Option<Error> {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Whether nobody is left who reads: EPIPE, or EIO of a terminal that was closed.
fn is_gone(error: &Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe || cfg!(unix) && error.raw_os_error() == Some(5)
}
