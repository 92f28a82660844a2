//! Rebuilds when a migration is added, which the macro that embeds them cannot see by itself.

fn main() {
    println!("cargo::rerun-if-changed=../migrations");
}
