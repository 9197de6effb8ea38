//! The functions there are: one table of signatures, by which calls are checked, and where each is worked out.
//!
//! `A`, `B` are parameters; a method's first type is what it is called on. Sources: the CEL specification, cel-go's
//! `strings`, `lists`, `sets` and `two-variable comprehension` extensions, and Kubernetes' own libraries (KEP-2876).

pub(super) mod lists;
pub(super) mod net;
pub(super) mod operators;
pub(super) mod semver;
pub(super) mod strings;
pub(super) mod times;
pub(super) mod url;

use std::{collections::HashMap, sync::LazyLock};

use super::{
    eval::{Budget, Error},
    types::Type,
    value::Value,
};

/// One way to call a function.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) method: bool,
    pub(super) args: Vec<Type>,
    pub(super) result: Type,
}

const TABLE: &str = "
!_(bool) bool
-_(int) int
-_(double) double
_+_(int,int) int
_+_(uint,uint) uint
_+_(double,double) double
_+_(string,string) string
_+_(bytes,bytes) bytes
_+_(list(A),list(A)) list(A)
_+_(duration,duration) duration
_+_(timestamp,duration) timestamp
_+_(duration,timestamp) timestamp
_-_(int,int) int
_-_(uint,uint) uint
_-_(double,double) double
_-_(duration,duration) duration
_-_(timestamp,duration) timestamp
_-_(timestamp,timestamp) duration
_*_(int,int) int
_*_(uint,uint) uint
_*_(double,double) double
_/_(int,int) int
_/_(uint,uint) uint
_/_(double,double) double
_%_(int,int) int
_%_(uint,uint) uint
_==_(A,A) bool
_!=_(A,A) bool
@in(A,list(A)) bool
@in(A,map(A,B)) bool
size(string) int
size(bytes) int
size(list(A)) int
size(map(A,B)) int
.size(string) int
.size(bytes) int
.size(list(A)) int
.size(map(A,B)) int
.contains(string,string) bool
.startsWith(string,string) bool
.endsWith(string,string) bool
.matches(string,string) bool
matches(string,string) bool
bool(bool) bool
bool(string) bool
int(int) int
int(uint) int
int(double) int
int(string) int
int(timestamp) int
int(duration) int
uint(uint) uint
uint(int) uint
uint(double) uint
uint(string) uint
double(double) double
double(int) double
double(uint) double
double(string) double
string(string) string
string(bool) string
string(int) string
string(uint) string
string(double) string
string(bytes) string
string(timestamp) string
string(duration) string
string(IP) string
string(CIDR) string
bytes(bytes) bytes
bytes(string) bytes
dyn(A) dyn
type(A) type
timestamp(timestamp) timestamp
timestamp(string) timestamp
timestamp(int) timestamp
duration(duration) duration
duration(string) duration
.getFullYear(timestamp) int
.getFullYear(timestamp,string) int
.getMonth(timestamp) int
.getMonth(timestamp,string) int
.getDayOfYear(timestamp) int
.getDayOfYear(timestamp,string) int
.getDayOfMonth(timestamp) int
.getDayOfMonth(timestamp,string) int
.getDate(timestamp) int
.getDate(timestamp,string) int
.getDayOfWeek(timestamp) int
.getDayOfWeek(timestamp,string) int
.getHours(timestamp) int
.getHours(timestamp,string) int
.getHours(duration) int
.getMinutes(timestamp) int
.getMinutes(timestamp,string) int
.getMinutes(duration) int
.getSeconds(timestamp) int
.getSeconds(timestamp,string) int
.getSeconds(duration) int
.getMilliseconds(timestamp) int
.getMilliseconds(timestamp,string) int
.getMilliseconds(duration) int
.charAt(string,int) string
.indexOf(string,string) int
.indexOf(string,string,int) int
.lastIndexOf(string,string) int
.lastIndexOf(string,string,int) int
.lowerAscii(string) string
.upperAscii(string) string
.replace(string,string,string) string
.replace(string,string,string,int) string
.split(string,string) list(string)
.split(string,string,int) list(string)
.substring(string,int) string
.substring(string,int,int) string
.trim(string) string
.join(list(string)) string
.join(list(string),string) string
.format(string,list(dyn)) string
strings.quote(string) string
.find(string,string) string
.findAll(string,string) list(string)
.findAll(string,string,int) list(string)
.isSorted(list(A)) bool
.sum(list(int)) int
.sum(list(uint)) uint
.sum(list(double)) double
.sum(list(duration)) duration
.min(list(A)) A
.max(list(A)) A
.indexOf(list(A),A) int
.lastIndexOf(list(A),A) int
.slice(list(A),int,int) list(A)
.flatten(list(list(A))) list(A)
.flatten(list(dyn)) list(dyn)
.flatten(list(dyn),int) list(dyn)
.sort(list(A)) list(A)
.distinct(list(A)) list(A)
.reverse(list(A)) list(A)
.first(list(A)) optional(A)
.last(list(A)) optional(A)
lists.range(int) list(int)
sets.contains(list(A),list(A)) bool
sets.equivalent(list(A),list(A)) bool
sets.intersects(list(A),list(A)) bool
optional.of(A) optional(A)
optional.ofNonZeroValue(A) optional(A)
optional.none() optional(A)
.hasValue(optional(A)) bool
.value(optional(A)) A
.or(optional(A),optional(A)) optional(A)
.orValue(optional(A),A) A
quantity(string) Quantity
isQuantity(string) bool
.sign(Quantity) int
.isGreaterThan(Quantity,Quantity) bool
.isLessThan(Quantity,Quantity) bool
.compareTo(Quantity,Quantity) int
.asApproximateFloat(Quantity) double
.asInteger(Quantity) int
.isInteger(Quantity) bool
.add(Quantity,Quantity) Quantity
.add(Quantity,int) Quantity
.sub(Quantity,Quantity) Quantity
.sub(Quantity,int) Quantity
url(string) URL
isURL(string) bool
.getScheme(URL) string
.getHost(URL) string
.getHostname(URL) string
.getPort(URL) string
.getEscapedPath(URL) string
.getQuery(URL) map(string,list(string))
ip(string) IP
isIP(string) bool
ip.isCanonical(string) bool
.family(IP) int
.isUnspecified(IP) bool
.isLoopback(IP) bool
.isLinkLocalMulticast(IP) bool
.isLinkLocalUnicast(IP) bool
.isGlobalUnicast(IP) bool
cidr(string) CIDR
isCIDR(string) bool
.containsIP(CIDR,string) bool
.containsIP(CIDR,IP) bool
.containsCIDR(CIDR,string) bool
.containsCIDR(CIDR,CIDR) bool
.ip(CIDR) IP
.prefixLength(CIDR) int
.masked(CIDR) CIDR
semver(string) Semver
semver(string,bool) Semver
isSemver(string) bool
isSemver(string,bool) bool
.isGreaterThan(Semver,Semver) bool
.isLessThan(Semver,Semver) bool
.compareTo(Semver,Semver) int
.major(Semver) int
.minor(Semver) int
.patch(Semver) int
format.named(string) optional(Format)
format.dns1123Label() Format
format.dns1123Subdomain() Format
format.dns1035Label() Format
format.qualifiedName() Format
format.dns1123LabelPrefix() Format
format.dns1123SubdomainPrefix() Format
format.dns1035LabelPrefix() Format
format.labelValue() Format
format.uri() Format
format.uuid() Format
format.byte() Format
format.date() Format
format.datetime() Format
.validate(Format,string) optional(list(string))
jsonpatch.escapeKey(string) string
.path(Authorizer,string) PathCheck
.group(Authorizer,string) GroupCheck
.serviceAccount(Authorizer,string,string) Authorizer
.resource(GroupCheck,string) ResourceCheck
.subresource(ResourceCheck,string) ResourceCheck
.namespace(ResourceCheck,string) ResourceCheck
.name(ResourceCheck,string) ResourceCheck
.fieldSelector(ResourceCheck,string) ResourceCheck
.labelSelector(ResourceCheck,string) ResourceCheck
.check(PathCheck,string) Decision
.check(ResourceCheck,string) Decision
.allowed(Decision) bool
.reason(Decision) string
.errored(Decision) bool
.error(Decision) string
";

/// The types whose values are ordered.
const ORDERED: &[&str] = &["bool", "int", "uint", "double", "string", "bytes", "timestamp", "duration"];

static SIGNATURES: LazyLock<HashMap<String, Vec<Signature>>> = LazyLock::new(|| {
    let mut all: HashMap<String, Vec<Signature>> = HashMap::new();
    for line in TABLE.lines().filter(|line| !line.is_empty()) {
        let (name, signature) = read(line);
        all.entry(name.to_owned()).or_default().push(signature);
    }
    for operator in ["_<_", "_<=_", "_>_", "_>=_"] {
        let own = all.entry(operator.to_owned()).or_default();
        let numbers = ["int", "uint", "double"];
        let mixed = numbers.iter().flat_map(|a| numbers.iter().filter(move |b| a != *b).map(move |b| (*a, *b)));
        let same = ORDERED.iter().map(|name| (*name, *name));
        for (a, b) in same.chain(mixed) {
            own.push(Signature { method: false, args: vec![type_of(a), type_of(b)], result: Type::Bool });
        }
    }
    all
});

/// One line of the table.
fn read(line: &'static str) -> (&'static str, Signature) {
    let (head, result) = line.rsplit_once(' ').unwrap_or((line, "dyn"));
    let (head, args) = head.split_once('(').unwrap_or((head, ")"));
    let args = args.strip_suffix(')').unwrap_or(args);
    let method = head.starts_with('.');
    let args = split(args).into_iter().map(type_of).collect();
    (head.trim_start_matches('.'), Signature { method, args, result: type_of(result) })
}

/// What stands between commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut found, mut depth, mut from) = (Vec::new(), 0_u32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                found.push(text.get(from..i).unwrap_or_default());
                from = i + 1;
            }
            _ => {}
        }
    }
    found.push(text.get(from..).unwrap_or_default());
    found.retain(|part| !part.is_empty());
    found
}

fn type_of(text: &str) -> Type {
    let inside =
        |name: &str| text.strip_prefix(name).and_then(|t| t.strip_prefix('(')).and_then(|t| t.strip_suffix(')'));
    if let Some(item) = inside("list") {
        return Type::list(type_of(item));
    }
    if let Some(inner) = inside("optional") {
        return Type::Optional(Box::new(type_of(inner)));
    }
    if let Some(inner) = inside("map")
        && let [key, value] = split(inner).as_slice()
    {
        return Type::Map(Box::new(type_of(key)), Box::new(type_of(value)), super::types::UNBOUNDED);
    }
    match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::text(),
        "bytes" => Type::Bytes(super::types::UNBOUNDED),
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Type,
        "A" => Type::Param('A'),
        "B" => Type::Param('B'),
        "Quantity" => Type::Named("kubernetes.Quantity"),
        "URL" => Type::Named("kubernetes.URL"),
        "IP" => Type::Named("net.IP"),
        "CIDR" => Type::Named("net.CIDR"),
        "Semver" => Type::Named("kubernetes.Semver"),
        "Format" => Type::Named("kubernetes.NamedFormat"),
        "Authorizer" => Type::Named("kubernetes.authorization.Authorizer"),
        "PathCheck" => Type::Named("kubernetes.authorization.PathCheck"),
        "GroupCheck" => Type::Named("kubernetes.authorization.GroupCheck"),
        "ResourceCheck" => Type::Named("kubernetes.authorization.ResourceCheck"),
        "Decision" => Type::Named("kubernetes.authorization.Decision"),
        _ => Type::Dyn,
    }
}

/// All ways to call a function, or a method, of this name.
pub(super) fn signatures(name: &str) -> &'static [Signature] {
    SIGNATURES.get(name).map_or(&[], Vec::as_slice)
}

/// Whether there is a function (no method) of this dotted name.
pub(super) fn is_function(dotted: &str) -> bool {
    signatures(dotted).iter().any(|signature| !signature.method)
}

/// One group of functions: the result, or none if a function of this name on these values is not in it.
type Group = fn(&str, &[Value], &mut Budget) -> Option<Result<Value, Error>>;

/// All groups; the operators first, as they are used most.
const GROUPS: &[Group] =
    &[operators::call, strings::call, lists::call, times::call, net::call, url::call, semver::call];

/// Works out a function; a method's target is its first value.
pub(super) fn call(function: &str, args: &[Value], budget: &mut Budget) -> Result<Value, Error> {
    if let [Value::Host(host), rest @ ..] = args
        && let Some(result) = host.call(function, rest)
    {
        let (value, cost) = result?;
        budget.spend(cost)?;
        return Ok(value);
    }
    if let Some(result) = GROUPS.iter().find_map(|group| group(function, args, budget)) {
        return result;
    }
    Err(Error::no_overload(function, args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_read_whole() {
        for line in TABLE.lines().filter(|line| !line.is_empty()) {
            let (name, signature) = read(line);
            let shown: Vec<String> = signature.args.iter().map(ToString::to_string).collect();
            let commas = split(line.split_once('(').unwrap().1.rsplit_once(' ').unwrap().0.strip_suffix(')').unwrap());
            assert_eq!(shown.len(), commas.len(), "{line}");
            assert!(!name.is_empty() && (!line.starts_with('.') || signature.method), "{line}");
        }
        assert_eq!(signatures("_<_").len(), 14);
    }
}
