//! How a release of the binary is linked: identical functions once, and without a table entry for each pointer in it.
//!
//! Kubernetes' types are read and written by code that the compiler makes anew for each type and each use; a good part of
//! it comes out byte for byte the same. The linker folds such functions into one (lld's `--icf`), and says compactly where
//! the program's own pointers are (RELR, which glibc understands since 2.36: Debian 12). Both are options of lld, which
//! rustc brings along and uses by itself on this target only.

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("TARGET", "x86_64-unknown-linux-gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
