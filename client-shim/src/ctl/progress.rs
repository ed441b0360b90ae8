//! What is going on, on one line of a terminal's stderr, gone when it is over. Elsewhere nothing is shown.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::paint;

/// Between two turns of the spinner.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Spinner(ProgressBar);

impl Spinner {
    pub(super) fn new(text: &'static str) -> Self {
        let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}");
        let bar =
            ProgressBar::new_spinner().with_style(style.expect("the template is right")).with_message(text);
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Shows the last line of `text` that says anything.
    pub(super) fn tell(&self, text: &str) {
        if let Some(line) = text.lines().rev().find(|line| !line.trim().is_empty()) {
            self.0.set_message(paint::printable(line.trim()).replace('\t', " "));
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
