//! Snapshots that are encrypted: what age's own program makes is read, what is made here it reads, and nothing else is taken.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    process::{Command, Stdio},
};

use clap::Parser;

use super::encrypted::{Keys, Locks, Sealed};

#[derive(Parser)]
struct Save {
    #[command(flatten)]
    locks: Locks,
}

#[derive(Parser)]
struct Restore {
    #[command(flatten)]
    keys: Keys,
}

fn encrypt(flags: &[&str], plain: &[u8]) -> anyhow::Result<Vec<u8>> {
    let Save { locks } = Save::try_parse_from([&["save"], flags].concat())?;
    let mut out = Vec::new();
    let mut sealed = Sealed::new(&mut out, locks.encryptor()?)?;
    sealed.write_all(plain)?;
    sealed.finish()?;
    Ok(out)
}

fn decrypt(flags: &[&str], bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let Restore { keys } = Restore::try_parse_from([&["restore"], flags].concat())?;
    let mut plain = Vec::new();
    keys.open(io::Cursor::new(bytes.to_vec()))?.read_to_end(&mut plain)?;
    Ok(plain)
}

fn refused<T>(done: anyhow::Result<T>) -> String {
    format!("{:#}", done.err().expect("it was done"))
}

/// A directory with keys and passphrases.
struct Drawer(tempfile::TempDir);

impl Drawer {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A new key's file, and whom to encrypt to for it.
    fn key(&self, name: &str) -> (String, String) {
        use age::secrecy::ExposeSecret as _;
        let identity = age::x25519::Identity::generate();
        let text = format!("# a comment, as age-keygen writes them\n{}\n", identity.to_string().expose_secret());
        (self.file(name, &text), identity.to_public().to_string())
    }
}

/// More than two pieces of 64 KiB, the last one not whole.
fn snapshot() -> Vec<u8> {
    (0..150_000_u32).map(|at| (at * 7 / 3 % 251).try_into().unwrap()).collect()
}

#[test]
fn what_is_encrypted_for_several_is_decrypted_by_each_and_by_nobody_else() {
    let drawer = Drawer::new();
    let ((one, to_one), (two, to_two), (other, _)) = (drawer.key("one"), drawer.key("two"), drawer.key("other"));
    let plain = snapshot();
    let file = encrypt(&["--encrypt-to", &to_one, "--encrypt-to", &to_two], &plain).unwrap();
    assert!(file.starts_with(b"age-encryption.org/v1\n"));
    assert!(!file.windows(16).any(|part| part == &plain[1000..1016]));
    for keys in [&["--identity", &one][..], &["--identity", &two], &["--identity", &other, "--identity", &one]] {
        assert!(decrypt(keys, &file).unwrap() == plain, "{keys:?}");
    }
    assert_eq!(refused(decrypt(&["--identity", &other], &file)), "the snapshot was encrypted for none of these keys");
    assert_eq!(decrypt(&[], &file).unwrap(), file, "without a key it is what it is, and the decoder says so");
    let word = drawer.file("word", "correct horse\n");
    assert_eq!(
        refused(decrypt(&["--passphrase-file", &word], &file)),
        "the snapshot is encrypted for a key: name its file (--identity FILE)"
    );
    assert_eq!(encrypt(&[], &plain).unwrap(), plain);
    assert!(refused(decrypt(&["--identity", &one], &plain)).contains("the snapshot is not encrypted"));
    assert!(refused(decrypt(&["--identity", &one], b"")).contains("the snapshot is not encrypted"));
}

#[test]
fn a_passphrase_is_the_first_line_of_its_file() {
    let drawer = Drawer::new();
    let (right, wrong) = (drawer.file("right", "correct horse\nnot this\n"), drawer.file("wrong", "battery"));
    let file = encrypt(&["--passphrase-file", &right], b"saved").unwrap();
    let same = drawer.file("same", "correct horse\r\n");
    assert_eq!(decrypt(&["--passphrase-file", &same], &file).unwrap(), b"saved");
    assert_eq!(
        refused(decrypt(&["--passphrase-file", &wrong], &file)),
        "the passphrase is another one than the snapshot was encrypted with"
    );
    let (key, _) = drawer.key("key");
    assert_eq!(
        refused(decrypt(&["--identity", &key], &file)),
        "the snapshot is encrypted with a passphrase: name its file (--passphrase-file FILE)"
    );
    // More work than anybody's passphrase asks for is not done.
    let text = String::from_utf8_lossy(&file[..120]).into_owned();
    let stanza = text.lines().find(|line| line.starts_with("-> scrypt")).unwrap();
    let cost = stanza.rsplit(' ').next().unwrap();
    let costly = stanza.replace(&format!(" {cost}"), " 40");
    let at = text.find(stanza).unwrap();
    let costly = [&file[..at], costly.as_bytes(), &file[at + stanza.len()..]].concat();
    let why = refused(decrypt(&["--passphrase-file", &right], &costly));
    assert_eq!(why, "the snapshot's passphrase costs 2^40 steps of work, and more than 2^20 are not taken");
}

#[test]
fn what_is_cut_short_or_altered_is_refused_wherever_it_is() {
    let drawer = Drawer::new();
    let (key, to) = drawer.key("key");
    let key = ["--identity", &key];
    let file = encrypt(&["--encrypt-to", &to], &snapshot()).unwrap();
    let header = file.windows(5).position(|part| part == b"\n--- ").unwrap() + 5;
    // In the beginning, between pieces of 64 KiB and their tags, within one, and a byte before the end.
    let (payload, piece) = (header + 43 + 1 + 16, (64 << 10) + 16);
    for len in [25, header, payload - 1, payload, payload + piece, payload + piece + 1, file.len() - 1] {
        let why = refused(decrypt(&key, &file[..len]));
        assert!(why.contains("cut short") || why.contains("its beginning is not whole"), "{len}: {why}");
    }
    assert_eq!(refused(decrypt(&key, &file[..payload + piece])), "the encrypted snapshot is cut short");
    for at in [24, header, header + 10, payload - 3, payload, payload + piece - 1, payload + piece, file.len() - 1] {
        let mut altered = file.clone();
        altered[at] ^= 1;
        let why = refused(decrypt(&key, &altered));
        assert!(why.contains("altered") || why.contains("for none of these keys"), "{at}: {why}");
    }
    let longer = [&file[..], b"x"].concat();
    assert!(refused(decrypt(&key, &longer)).contains("altered"));
}

#[test]
fn wrong_keys_are_named_and_not_repeated() {
    let drawer = Drawer::new();
    let (key, to) = drawer.key("key");
    let secret = fs::read_to_string(&key).unwrap();
    for wrong in ["age1", "ssh-ed25519 AAAA", &to[..to.len() - 1], ""] {
        let why = refused(encrypt(&["--encrypt-to", wrong], b""));
        assert_eq!(why, format!("--encrypt-to {wrong:?}: this is no recipient of age (age1…)"));
    }
    for (name, text, expected) in [
        ("empty", "# nothing\n", "there is no age key in it"),
        (
            "cut",
            secret.trim_end().trim_end_matches(|_: char| false).split_at(secret.len() - 5).0,
            "something else in it",
        ),
        ("recipient", &to, "something else in it"),
    ] {
        let file = drawer.file(name, text);
        let why = refused(decrypt(&["--identity", &file], b"age-encryption.org/v1\n"));
        assert!(why.starts_with(&format!("--identity {file}: ")) && why.contains(expected), "{name}: {why}");
        assert!(!why.contains("AGE-SECRET-KEY-1Q") && !why.contains(secret.lines().last().unwrap()), "{why}");
    }
    let missing = refused(decrypt(&["--identity", "/nowhere/key"], b""));
    assert!(missing.contains("--identity /nowhere/key: No such file"), "{missing}");
    for (name, text, expected) in [
        ("none", "", "its first line is empty"),
        ("blank", "\nword\n", "its first line is empty"),
        ("long", &"x".repeat(4097), "its first line is longer than 4096 bytes"),
    ] {
        let file = drawer.file(name, text);
        let why = refused(encrypt(&["--passphrase-file", &file], b""));
        assert_eq!(why, format!("--passphrase-file {file}: {expected}"));
    }
    let both = encrypt(&["--encrypt-to", &to, "--passphrase-file", &key], b"");
    assert!(refused(both).contains("cannot be used with"));
    let both = decrypt(&["--identity", &key, "--passphrase-file", &key], b"");
    assert!(refused(both).contains("cannot be used with"));
}

/// Made by age 1.1.1 (`age --armor`), with the key below that opens nothing else.
const OF_AGE: &str = "\
-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSA3OGRtMU1obVVHTDJ2cUZC
aUxBWEdWc3FENEpHcGFJMU5VTXhCc012dGk4CkZ5cEZhUXdodFh3OFRxUy83REZU
WXhVVXd3QmVhTXVFaVdIMW5sdzdZQkUKLS0tIGdXU3g3ZHhaa0VYNGh0c09Vby8z
N080am1CZ01vdEs0emtmcHZ6TlRRWlkKqY/m69Mj4SupEefQHX3L5hbBRgiMG06V
NoN6w6WqglfDDIx9cL8ep2EjcfbSWmw=
-----END AGE ENCRYPTED FILE-----
";
const KEY: &str = "AGE-SECRET-KEY-1TNJVKTRFLSY8NN3SCA2P32AJA8GXV93RQ2GH0TQ6KHCAQHN8748QD8GSJY\n";

#[test]
fn what_age_made_is_read() {
    let drawer = Drawer::new();
    let key = drawer.file("key", KEY);
    assert_eq!(decrypt(&["--identity", &key], OF_AGE.as_bytes()).unwrap(), b"what was saved\n");
    let cut = OF_AGE.split_at(OF_AGE.len() - 60).0;
    assert!(refused(decrypt(&["--identity", &key], cut.as_bytes())).contains("the encrypted snapshot"));
}

fn age(arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new("age");
    let mut process = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut stdin = process.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = process.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "age {arguments:?}");
    Some(output.stdout)
}

#[test]
fn age_itself_reads_what_is_made_here_and_the_other_way_round() {
    let drawer = Drawer::new();
    let (key, to) = drawer.key("key");
    let (plain, identity) = (snapshot(), ["--identity", &key]);
    let file = encrypt(&["--encrypt-to", &to], &plain).unwrap();
    let Some(read) = age(&["--decrypt", "--identity", &key], &file) else {
        eprintln!("Skipped: there is no age on this machine");
        return;
    };
    assert!(read == plain);
    for arguments in [&["--recipient", &to][..], &["--armor", "--recipient", &to]] {
        let made = age(arguments, &plain).expect("it was there");
        assert!(decrypt(&identity, &made).unwrap() == plain, "{arguments:?}");
    }
}
