//! Figures as Prometheus reads them: a page of its text format (version 0.0.4), and what programs count into.

mod histogram;
mod process;

use std::fmt::{self, Display, Write};

pub use histogram::{Histogram, Scale};

/// The media type of the format.
pub const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page being written.
#[derive(Debug, Default)]
pub struct Page(pub String);

impl Page {
    /// Begins a family of samples: what `kind` it is of (`counter`, `gauge`, `histogram`), and what it is about.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// A sample; `labels` with their braces.
    pub fn line(&mut self, name: &str, labels: impl Display, value: impl Display) {
        self.write(format_args!("{name}{labels} {value}\n"));
    }

    /// A family of one sample without labels.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, "", value);
    }

    /// What the kernel says of this process (`process_*`).
    pub fn process(&mut self) {
        for (name, kind, help, value) in process::figures() {
            self.one(name, kind, help, value);
        }
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.0.write_fmt(text);
    }
}
