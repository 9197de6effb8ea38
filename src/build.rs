//! How a release of the binary is linked: identical functions once, and at an address that is known then.
//!
//! Kubernetes' types are read and written by code that the compiler makes anew for each type and each use; a good part of
//! it comes out byte for byte the same. The linker folds such functions into one (`--icf` of lld, which rustc brings along
//! and uses by itself on this target only).
//!
//! The program is also its pods' supervisors. What is loaded wherever there is room has its pointers written anew in each
//! process: 1.7 MB of tables that each supervisor then has for itself, of which it uses next to nothing. At a fixed address
//! (`-no-pie`, as Kubernetes' own programs are linked) these pages are the file's and are there once. Stack, heap and
//! libraries are where chance puts them all the same.

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("TARGET", "x86_64-unknown-linux-gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
