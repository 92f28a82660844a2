//! A report as people read it: a page, or text for a pull request.

pub(crate) mod chart;
pub(crate) mod html;
pub(crate) mod markdown;
#[cfg(test)]
mod tests;
mod words;
