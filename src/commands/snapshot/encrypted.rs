//! Snapshots that are encrypted: files of the format of age (<https://age-encryption.org/v1>), written and read as a stream.
//!
//! What is decrypted is handed on piece by piece and never lies on a disk. Each piece is known to be unaltered when it is
//! handed on; that there was an end is known at the end.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use age::{
    DecryptError, Decryptor, Encryptor, Identity, IdentityFile, Recipient, armor::ArmoredReader, scrypt,
    secrecy::SecretString, stream::StreamWriter, x25519,
};
use anyhow::{Context, bail};

/// The most work a passphrase may cost, as a power of two: age's own programs take 18, and each more doubles the second that
/// takes and the 256 MB it needs.
const MOST_WORK: u8 = 20;
/// Longest file of a passphrase, in bytes: whoever names another file by mistake learns it at once.
const LONGEST_PASSPHRASE: u64 = 4096;

/// For whom a snapshot is encrypted.
#[derive(clap::Args)]
pub(crate) struct Locks {
    /// Encrypt it for the holder of this age key (age1…); may be given several times: any one of them can decrypt it.
    #[arg(long, value_name = "RECIPIENT", conflicts_with = "passphrase_file")]
    encrypt_to: Vec<String>,
    /// Encrypt it with the passphrase in this file's first line.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// With what an encrypted snapshot is decrypted.
#[derive(clap::Args)]
pub(crate) struct Keys {
    /// Decrypt it with the age key (AGE-SECRET-KEY-1…) in this file; may be given several times.
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    identity: Vec<PathBuf>,
    /// Decrypt it with the passphrase in this file's first line.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Locks {
    pub(super) const fn is_empty(&self) -> bool {
        self.encrypt_to.is_empty() && self.passphrase_file.is_none()
    }

    /// What these lock with; none: nothing is to be encrypted.
    pub(super) fn encryptor(&self) -> anyhow::Result<Option<Encryptor>> {
        if let Some(file) = &self.passphrase_file {
            return Ok(Some(Encryptor::with_user_passphrase(passphrase(file)?)));
        }
        let recipient = |text: &String| {
            let parsed = text.parse::<x25519::Recipient>();
            parsed.map_err(|_| anyhow::anyhow!("--encrypt-to {text:?}: this is no recipient of age (age1…)"))
        };
        let recipients = self.encrypt_to.iter().map(recipient).collect::<anyhow::Result<Vec<_>>>()?;
        if recipients.is_empty() {
            return Ok(None);
        }
        Ok(Some(Encryptor::with_recipients(recipients.iter().map(|one| one as &dyn Recipient))?))
    }
}

impl Keys {
    const fn is_empty(&self) -> bool {
        self.identity.is_empty() && self.passphrase_file.is_none()
    }

    fn identities(&self) -> anyhow::Result<Vec<Box<dyn Identity>>> {
        if let Some(file) = &self.passphrase_file {
            let mut identity = scrypt::Identity::new(passphrase(file)?);
            identity.set_max_work_factor(MOST_WORK);
            return Ok(vec![Box::new(identity)]);
        }
        let mut all = Vec::new();
        for file in &self.identity {
            let named = || format!("--identity {}", file.display());
            let opened = BufReader::new(File::open(file).with_context(named)?);
            // What is wrong in it is not repeated: it may be most of a key.
            let read =
                IdentityFile::from_buffer(opened).and_then(|read| read.into_identities().map_err(io::Error::other));
            let identities = read
                .map_err(|_| anyhow::anyhow!("there is something else in it than age keys (AGE-SECRET-KEY-1…)"))
                .with_context(named)?;
            if identities.is_empty() {
                return Err(anyhow::anyhow!("there is no age key in it (AGE-SECRET-KEY-1…)")).with_context(named);
            }
            all.extend(identities);
        }
        Ok(all)
    }

    /// What a snapshot holds that `input` reads, decrypted if these are keys for that.
    pub(super) fn open(&self, input: impl Read + 'static) -> anyhow::Result<Box<dyn Read>> {
        if self.is_empty() {
            return Ok(Box::new(input));
        }
        let identities = self.identities()?;
        let mut input = BufReader::new(input);
        // Whoever names a key expects that nobody else could have made the file.
        if !input.fill_buf()?.starts_with(b"age-encryption.org/") && !input.fill_buf()?.starts_with(b"-----BEGIN AGE") {
            bail!("the snapshot is not encrypted: leave out --identity and --passphrase-file");
        }
        let decryptor = Decryptor::new(ArmoredReader::new(input)).map_err(|error| self.why(&error))?;
        match (decryptor.is_scrypt(), self.passphrase_file.is_some()) {
            (true, false) => {
                bail!("the snapshot is encrypted with a passphrase: name its file (--passphrase-file FILE)")
            }
            (false, true) => bail!("the snapshot is encrypted for a key: name its file (--identity FILE)"),
            (true, true) | (false, false) => {}
        }
        let decrypted = decryptor.decrypt(identities.iter().map(|one| &**one)).map_err(|error| self.why(&error))?;
        Ok(Box::new(Decrypted(decrypted)))
    }

    fn why(&self, error: &DecryptError) -> anyhow::Error {
        match error {
            DecryptError::NoMatchingKeys => anyhow::anyhow!("the snapshot was encrypted for none of these keys"),
            DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed if self.passphrase_file.is_some() => {
                anyhow::anyhow!("the passphrase is another one than the snapshot was encrypted with")
            }
            DecryptError::ExcessiveWork { required, .. } => anyhow::anyhow!(
                "the snapshot's passphrase costs 2^{required} steps of work, and more than 2^{MOST_WORK} are not taken"
            ),
            DecryptError::Io(error) => said(error).into(),
            DecryptError::UnknownFormat
            | DecryptError::InvalidHeader
            | DecryptError::InvalidMac
            | DecryptError::DecryptionFailed
            | DecryptError::KeyDecryptionFailed => {
                anyhow::anyhow!(
                    "the encrypted snapshot's beginning is not whole: it was altered, or is of a newer format"
                )
            }
        }
    }
}

/// The first line of a file.
fn passphrase(file: &Path) -> anyhow::Result<SecretString> {
    let read = || {
        let mut text = String::new();
        File::open(file)?.take(LONGEST_PASSPHRASE + 1).read_to_string(&mut text)?;
        Ok::<_, io::Error>(text)
    };
    let named = || format!("--passphrase-file {}", file.display());
    let text = read().with_context(named)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(anyhow::anyhow!("its first line is empty")).with_context(named);
    }
    if line.len() as u64 > LONGEST_PASSPHRASE {
        return Err(anyhow::anyhow!("its first line is longer than {LONGEST_PASSPHRASE} bytes")).with_context(named);
    }
    Ok(SecretString::from(line.to_owned()))
}

/// What age says of a stream, for people.
fn said(error: &io::Error) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the encrypted snapshot is cut short",
        // A piece that is cut looks like one that was altered.
        io::ErrorKind::InvalidData => "the encrypted snapshot was altered, or is cut short",
        _ => return io::Error::new(error.kind(), error.to_string()),
    };
    io::Error::new(error.kind(), why)
}

/// Reads what is decrypted.
struct Decrypted<R>(R);

impl<R: Read> Read for Decrypted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| said(&error))
    }
}

/// Writes a snapshot, encrypted or as it is.
pub(super) enum Sealed<W: Write> {
    Plain(W),
    Encrypted(StreamWriter<W>),
}

impl<W: Write> fmt::Debug for Sealed<W> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Encrypted(_) => "Encrypted",
        })
    }
}

impl<W: Write> Sealed<W> {
    pub(super) fn new(out: W, encryptor: Option<Encryptor>) -> io::Result<Self> {
        Ok(match encryptor {
            None => Self::Plain(out),
            Some(encryptor) => Self::Encrypted(encryptor.wrap_output(out)?),
        })
    }

    /// Writes the end, without which what was written is one that is cut short.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut out) => out.flush(),
            Self::Encrypted(writer) => writer.finish()?.flush(),
        }
    }
}

impl<W: Write> Write for Sealed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Encrypted(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Encrypted(writer) => writer.flush(),
        }
    }
}
