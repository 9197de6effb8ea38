//! Numbers from a seed, broken inputs made of good ones, and what runs of them are told and measured by.

/// A generator of numbers: SplitMix64 (Steele, Lea, Flood 2014), which is one addition and a few shifts.
pub(crate) struct Dice(u64);

/// What decoders stumble over: ends of numbers, quotes, escapes, signs of their languages, letters of more than one byte.
const WORDS: &[&str] = &[
    "",
    "\0",
    " ",
    "\n",
    "\t",
    "\r\n",
    "\"",
    "'",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\x",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ",",
    ":",
    ": ",
    "- ",
    "? ",
    "&a ",
    "*a",
    "<<: *a",
    "!!binary ",
    "!!str ",
    "|\n ",
    "---\n",
    "#",
    "null",
    "~",
    "true",
    "yes",
    "0",
    "-1",
    "-0",
    "0x7f",
    "0644",
    "1e999",
    "1e-999",
    "NaN",
    ".inf",
    "2147483648",
    "-9223372036854775808",
    "9223372036854775807",
    "18446744073709551616",
    "99999999999999999999999999999999999999",
    "1.5",
    "1Ei",
    "n",
    "m",
    "Ki",
    "é",
    "名",
    "\u{1f980}",
    "\u{202e}",
    "\u{feff}",
    "e\u{301}",
    "=",
    "==",
    "!=",
    "!",
    "in (",
    " notin (",
    "&&",
    "||",
    "?",
    "..",
    "/",
    "//",
    "~1",
    "%00",
    "%ff",
    "%",
    "$patch",
    "$retainKeys",
    "f:",
    "k:{\"a\":1}",
    "v:1",
    "i:0",
    ".",
    "@yearly",
    "TZ=UTC ",
    "*/0",
    "x-kubernetes-",
];

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `sides`; 0 when that is none.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.next() % (sides.max(1) as u64)).unwrap()
    }

    pub(crate) fn pick<'t, T: ?Sized>(&mut self, of: &[&'t T]) -> &'t T {
        of[self.roll(of.len())]
    }

    /// A word that decoders stumble over.
    pub(crate) fn word(&mut self) -> &'static str {
        self.pick(WORDS)
    }

    /// A range within `length`, seldom a long one.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.roll(length + 1);
        let most = if self.roll(8) == 0 { length - start } else { (length - start).min(8) };
        start..start + self.roll(most + 1)
    }

    /// One of the corpus, changed in up to five places.
    pub(crate) fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.roll(corpus.len())].clone();
        for _ in 0..self.roll(6) {
            let range = self.range(input.len());
            let with = match self.roll(8) {
                0 => Vec::new(),
                1 => input[range.clone()].repeat(2),
                2 => {
                    let byte = u8::try_from(self.roll(256)).unwrap();
                    vec![byte; range.len().max(1)]
                }
                3 => {
                    let other = &corpus[self.roll(corpus.len())];
                    other[self.range(other.len())].to_vec()
                }
                // Nesting, and what grows with every repetition.
                4 if self.roll(4) == 0 => {
                    let piece =
                        if self.roll(2) == 0 { self.word().as_bytes().to_vec() } else { input[range.clone()].to_vec() };
                    piece.repeat(self.roll(1000))
                }
                5 => {
                    input.truncate(range.start.max(1));
                    continue;
                }
                _ => self.word().as_bytes().to_vec(),
            };
            let replaced = if self.roll(2) == 0 { range } else { range.start..range.start };
            input.splice(replaced, with);
            input.truncate(16 * 1024);
        }
        input
    }
}

/// A number from the environment, where runs are made longer and begun elsewhere.
pub(crate) fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The most memory this process ever had, as the kernel counts it (proc(5), `VmHWM`).
pub(crate) fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}
