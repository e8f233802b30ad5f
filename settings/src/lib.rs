//! Settings from a TOML file, with errors that name the file, the line and the nearest valid key.
//!
//! Both daemons read their configuration through this, so that a mistake reads the same everywhere:
//!
//! ```text
//! push-daemon.toml:3:1: unknown key `lissten`: did you mean `listen`?
//! logic-tier.toml:12:14: invalid value: integer `0`, expected a whole number from 1 to 1024
//! ```
//!
//! It does not know any setting: the daemons' own types say which keys there are, and check what a single value
//! cannot tell; [`Source::wrong`] gives what they find a place in the file.
//!
//! Layout: `source` a file and the places in it · `explain` serde's words in the operator's · `values` what a single
//! value may be · `example` what a file that explains the settings has to say

mod explain;
mod source;
mod values;

pub mod example;

pub use explain::unknown;
pub use source::{SettingsError, Source};
pub use values::{Bounded, ListenAddress, Secret};
