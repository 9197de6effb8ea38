//! What counts as left out of an object.
//!
//! Most fields of Kubernetes' own types know no difference between absent and zero: an empty string, an empty list and
//! `false` are as good as nothing and are not written out. Our types do keep them apart, so defaulting fills both and
//! drops the zeros of such fields: otherwise an object that went through a Go client would look changed.

/// Sets a text that is absent or empty.
pub fn fill_text(field: &mut Option<String>, default: &str) {
    if text(field).is_empty() {
        *field = Some(default.to_owned());
    }
}

/// Sets a value that is absent.
pub fn fill<T>(field: &mut Option<T>, default: T) {
    field.get_or_insert(default);
}

/// Sets a number that is absent or zero.
pub fn fill_number(field: &mut Option<i32>, default: i32) {
    if field.unwrap_or(0) == 0 {
        *field = Some(default);
    }
}

/// The text, empty when absent.
#[must_use]
pub fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

/// The list, empty when absent.
#[must_use]
pub fn list<T>(field: &Option<Vec<T>>) -> &[T] {
    field.as_deref().unwrap_or_default()
}

/// The list's items to change, none when absent.
pub fn items_mut<T>(field: &mut Option<Vec<T>>) -> &mut [T] {
    field.as_deref_mut().unwrap_or_default()
}

/// A field that may be as good as absent.
pub trait Blank {
    /// Whether it is the zero that is not written out.
    fn is_blank(&self) -> bool;
}

impl Blank for String {
    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}

impl Blank for bool {
    fn is_blank(&self) -> bool {
        !*self
    }
}

impl Blank for i32 {
    fn is_blank(&self) -> bool {
        *self == 0
    }
}

impl<T> Blank for Vec<T> {
    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Blank for std::collections::BTreeMap<K, V> {
    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}

/// Makes a zero absent.
pub fn drop_blank<T: Blank>(field: &mut Option<T>) {
    if field.as_ref().is_some_and(Blank::is_blank) {
        *field = None;
    }
}
