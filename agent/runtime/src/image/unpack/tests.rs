//! Layers, whole and hostile.

use std::{
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt, symlink},
};

use tar::{Builder, Header};

use super::*;

fn layer(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    fill(&mut builder);
    builder.into_inner().unwrap()
}

/// Adds an entry whose name is taken as it is, however wrong.
fn raw(builder: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, link: &str, data: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(data.len() as u64);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    builder.append(&header, data).unwrap();
}

fn file(builder: &mut Builder<Vec<u8>>, path: &str, data: &[u8]) {
    raw(builder, EntryType::Regular, path, "", data);
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outside"), "untouched").unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Unpacked, UnpackError> {
        unpack(bytes, &Expected::default(), &Limits::default(), &self.path())
    }

    /// Unpacks what must be refused, and shows that nothing outside was touched.
    fn refuse(bytes: &[u8]) -> String {
        let bench = Self::new();
        let error = bench.unpack(bytes).unwrap_err().to_string();
        bench.outside_is_untouched();
        error
    }

    fn outside_is_untouched(&self) {
        assert_eq!(fs::read_to_string(self.dir.path().join("outside")).unwrap(), "untouched");
        let names: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

#[test]
fn files_keep_owner_mode_time_and_attributes() {
    let bench = Bench::new();
    let capability = [1, 0, 0, 2, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let bytes = layer(|builder| {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Directory);
        header.set_path("bin/").unwrap();
        header.set_mode(0o1777);
        header.set_mtime(1_000_000);
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
        builder
            .append_pax_extensions([
                ("SCHILY.xattr.security.capability", &capability[..]),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("mtime", b"1700000000.25"),
            ])
            .unwrap();
        let mut header = Header::new_ustar();
        header.set_path("bin/tool").unwrap();
        header.set_mode(0o4755);
        header.set_uid(12);
        header.set_gid(34);
        header.set_size(4);
        header.set_cksum();
        builder.append(&header, &b"tool"[..]).unwrap();
        raw(builder, EntryType::Link, "bin/other", "bin/tool", b"");
        raw(builder, EntryType::Symlink, "bin/sh", "/bin/tool", b"");
        raw(builder, EntryType::Fifo, "bin/fifo", "", b"");
    });
    let unpacked = bench.unpack(&bytes).unwrap();
    assert_eq!(unpacked.diff_id, Digest::of(&bytes));
    assert_eq!(unpacked.size, 4);
    let tool = bench.path().join("bin/tool");
    let meta = fs::metadata(&tool).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (12, 34, 0o4755));
    assert_eq!((meta.mtime(), meta.mtime_nsec(), meta.nlink()), (1_700_000_000, 250_000_000, 2));
    assert_eq!(xattr::get(&tool, "security.capability").unwrap().unwrap(), capability);
    assert_eq!(xattr::get(&tool, "trusted.overlay.redirect").unwrap(), None);
    assert_eq!(fs::read_link(bench.path().join("bin/sh")).unwrap(), Path::new("/bin/tool"));
    assert!(fs::symlink_metadata(bench.path().join("bin/fifo")).unwrap().file_type().is_fifo());
    let bin = fs::metadata(bench.path().join("bin")).unwrap();
    assert_eq!((bin.mode() & 0o7777, bin.mtime()), (0o1777, 1_000_000));
}

#[test]
fn whiteouts_become_what_overlayfs_reads() {
    let bench = Bench::new();
    let bytes = layer(|builder| {
        file(builder, "etc/.wh.gone", b"");
        file(builder, "var/.wh..wh..opq", b"");
        file(builder, ".wh..wh.plnk", b"");
        file(builder, "own", b"new");
        file(builder, ".wh.own", b"");
        file(builder, ".wh.again", b"");
        raw(builder, EntryType::Directory, "again", "", b"");
    });
    bench.unpack(&bytes).unwrap();
    let gone = fs::symlink_metadata(bench.path().join("etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
    let opaque = |name: &str| xattr::get(bench.path().join(name), OPAQUE).unwrap();
    assert_eq!(opaque("var").unwrap(), b"y");
    assert_eq!(opaque("again").unwrap(), b"y");
    assert_eq!(opaque("etc"), None);
    assert_eq!(fs::read_to_string(bench.path().join("own")).unwrap(), "new");
    assert!(!bench.path().join(".wh..wh.plnk").exists());
}

#[test]
fn names_that_leave_the_layer_are_refused() {
    for name in ["../outside", "a/../../outside", "..", "/../outside"] {
        let error = Bench::refuse(&layer(|builder| file(builder, name, b"hostile")));
        assert!(error.contains("path leaves its directory"), "{error}");
    }
    for name in ["../.wh.outside", "../.wh..wh..opq"] {
        Bench::refuse(&layer(|builder| file(builder, name, b"")));
    }
    for name in [".wh..", ".wh...", "a/.wh."] {
        let error = Bench::refuse(&layer(|builder| file(builder, name, b"")));
        assert!(error.contains("whiteout of no name"), "{error}");
    }
}

#[test]
fn absolute_names_and_links_stay_in_the_layer() {
    let bench = Bench::new();
    let bytes = layer(|builder| {
        file(builder, "/etc/motd", b"inside");
        raw(builder, EntryType::Symlink, "up", "../..", b"");
        file(builder, "up/outside", b"hostile");
        raw(builder, EntryType::Symlink, "root", "/", b"");
        file(builder, "root/tmp/x", b"inside");
        raw(builder, EntryType::Symlink, "target", "/outside", b"");
        file(builder, "target", b"replaced");
    });
    bench.unpack(&bytes).unwrap();
    bench.outside_is_untouched();
    let read = |name: &str| fs::read_to_string(bench.path().join(name)).unwrap();
    assert_eq!(read("etc/motd"), "inside");
    assert_eq!(read("outside"), "hostile");
    assert_eq!(read("tmp/x"), "inside");
    assert_eq!(read("target"), "replaced");
}

#[test]
fn links_that_lead_nowhere_inside_are_not_written_through() {
    for target in ["/proc/self/root", "/nowhere", "loop"] {
        Bench::refuse(&layer(|builder| {
            raw(builder, EntryType::Symlink, "loop", target, b"");
            file(builder, "loop/x", b"hostile");
        }));
    }
}

#[test]
fn hard_links_reach_only_files_of_the_layer() {
    for target in ["../outside", "/nothing", "missing", ".", "dir", "self"] {
        let bytes = layer(|builder| {
            raw(builder, EntryType::Directory, "dir", "", b"");
            raw(builder, EntryType::Link, "self", target, b"");
        });
        Bench::refuse(&bytes);
    }
    let bench = Bench::new();
    let outside = bench.dir.path().join("outside");
    let bytes = layer(|builder| {
        raw(builder, EntryType::Symlink, "s", outside.to_str().unwrap(), b"");
        raw(builder, EntryType::Link, "l", "s", b"");
    });
    bench.unpack(&bytes).unwrap();
    assert_eq!(fs::metadata(&outside).unwrap().nlink(), 1);
    assert!(fs::symlink_metadata(bench.path().join("l")).unwrap().is_symlink());
}

#[test]
fn devices_are_made_and_a_forged_whiteout_is_not() {
    let bench = Bench::new();
    let device = |major, minor| {
        layer(|builder| {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Char);
            header.set_path("dev/null").unwrap();
            header.set_mode(0o666);
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, &[][..]).unwrap();
        })
    };
    bench.unpack(&device(1, 3)).unwrap();
    let meta = fs::symlink_metadata(bench.path().join("dev/null")).unwrap();
    assert_eq!((meta.rdev(), meta.mode() & 0o7777), (makedev(1, 3), 0o666));
    assert!(Bench::refuse(&device(0, 0)).contains("would be a whiteout"));
}

#[test]
fn digests_and_sizes_must_be_what_was_promised() {
    let bytes = layer(|builder| file(builder, "a", b"x"));
    let length = bytes.len() as u64;
    let check = |blob: Option<(u64, Digest)>, diff_id| {
        let bench = Bench::new();
        unpack(bytes.as_slice(), &Expected { blob, diff_id }, &Limits::default(), &bench.path())
    };
    let digest = Digest::of(&bytes);
    let other = Digest::of(b"other");
    assert!(check(Some((length, digest.clone())), Some(digest.clone())).is_ok());
    assert!(matches!(check(Some((length, other.clone())), None), Err(UnpackError::Digest { .. })));
    assert!(matches!(check(None, Some(other)), Err(UnpackError::DiffId { .. })));
    assert!(matches!(check(Some((length - 1, digest.clone())), None), Err(UnpackError::Oversized { .. })));
    assert!(matches!(check(Some((length + 1, digest)), None), Err(UnpackError::Short { .. })));
}

#[test]
fn bombs_are_stopped_at_their_bounds() {
    let bench = Bench::new();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut header = Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(1 << 30);
    header.set_cksum();
    encoder.write_all(header.as_bytes()).unwrap();
    for _ in 0..256 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let limits = Limits { ratio: 100, ..Limits::default() };
    let error = unpack(bomb.as_slice(), &Expected::default(), &limits, &bench.path()).unwrap_err();
    assert!(matches!(error, UnpackError::Limit { .. }), "{error}");

    let small = Limits { bytes: 1 << 20, ..Limits::default() };
    let error = unpack(bomb.as_slice(), &Expected::default(), &small, &bench.dir.path().join("b")).unwrap_err();
    assert!(matches!(error, UnpackError::Limit { .. }), "{error}");

    let many = layer(|builder| (0..20).for_each(|at| file(builder, &format!("f{at}"), b"")));
    let few = Limits { entries: 10, ..Limits::default() };
    let error = unpack(many.as_slice(), &Expected::default(), &few, &bench.dir.path().join("c")).unwrap_err();
    assert!(error.to_string().contains("more than 10 files"), "{error}");
}

#[test]
fn cut_and_garbled_archives_are_errors() {
    let bytes = layer(|builder| file(builder, "a", &[7; 5000]));
    for length in [1, 511, 600, 3000] {
        Bench::refuse(&bytes[..length]);
    }
    let mut garbled = bytes.clone();
    garbled[3] ^= 1;
    assert!(Bench::refuse(&garbled).contains("checksum"));
    let long = "x".repeat(90);
    Bench::refuse(&layer(|builder| {
        let deep = vec![long.as_str(); 60].join("/");
        builder.append_data(&mut Header::new_gnu(), deep, &[][..]).unwrap();
    }));
}

#[test]
fn runs_of_zeros_become_holes_and_later_entries_replace_earlier_ones() {
    let bench = Bench::new();
    let mut data = vec![0; 1 << 20];
    data[500_000] = 1;
    let bytes = layer(|builder| {
        file(builder, "sparse", &data);
        raw(builder, EntryType::Directory, "d", "", b"");
        file(builder, "d/x", b"old");
        file(builder, "d", b"now a file");
        file(builder, "f", b"old");
        raw(builder, EntryType::Directory, "f", "", b"");
    });
    bench.unpack(&bytes).unwrap();
    assert_eq!(fs::read(bench.path().join("sparse")).unwrap(), data);
    assert!(fs::metadata(bench.path().join("sparse")).unwrap().blocks() * 512 < 1 << 18);
    assert_eq!(fs::read_to_string(bench.path().join("d")).unwrap(), "now a file");
    assert!(bench.path().join("f").is_dir());
    symlink("x", bench.dir.path().join("y")).unwrap();
}
