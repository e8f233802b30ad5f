//! The push daemon..
fn main() {}
