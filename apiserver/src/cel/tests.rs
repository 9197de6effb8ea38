//! Expressions with their values, their mistakes and their prices; what hostile ones cannot do.

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

fn environment() -> Environment {
    let spec = Type::of_properties(
        "object.spec",
        [
            ("replicas".to_owned(), Type::Int),
            ("name".to_owned(), Type::Text(63)),
            ("a-b".to_owned(), Type::Bool),
            ("list".to_owned(), Type::List(Box::new(Type::Text(10)), 5)),
            ("map".to_owned(), Type::map(Type::text())),
        ],
    );
    Environment::new().with("self", spec).with("any", Type::Dyn)
}

fn run(expression: &str) -> Result<Value, String> {
    let program = compile(expression, &environment()).map_err(|error| error.shown)?;
    let object = json!({"replicas": 3, "name": "web", "a-b": true, "list": ["x", "y"], "map": {"k": "v"}});
    let ty = environment().get("self").cloned().unwrap();
    let variables = [
        ("self", Value::typed(&object, &ty, &ListKind::Atomic)),
        ("any", Value::of(&json!({"n": 1, "d": 1.5, "l": [3, 1, 2], "in": true}))),
    ];
    program.run(&variables, &mut Budget::new(PER_CALL_LIMIT)).map_err(|error| error.message)
}

#[test]
fn expressions_that_hold() {
    for expression in [
        "1 + 2 * 3 == 7 && 7 % 4 == 3 && -7 / 2 == -3",
        "self.replicas > 2 && self.name.startsWith('w') && self.a__dash__b",
        "has(self.replicas) && !has(any.nope) && any.d == 1.5 && any.n == 1u && any.n < 1.5",
        "self.list.all(x, x.size() == 1) && self.list.exists(x, x == 'y') && self.list.exists_one(x, x == 'x')",
        "self.list.map(x, x + '!') == ['x!', 'y!'] && self.list.filter(x, x > 'x') == ['y']",
        "self.list.map(x, x != 'x', x + x) == ['yy']",
        "self.map.all(k, self.map[k] == 'v') && 'k' in self.map && 'x' in self.list",
        "self.list.all(i, v, i < 2 && v != '') && self.map.exists(k, v, k == 'k' && v == 'v')",
        "self.list.transformList(i, v, string(i) + v) == ['0x', '1y']",
        "self.map.transformMap(k, v, k + v) == {'k': 'kv'}",
        "self.map.transformMapEntry(k, v, {v: k}) == {'v': 'k'}",
        "[3, 1, 2].sort() == [1, 2, 3] && [3, 1].sortBy(x, -x) == [3, 1] && [1, 2].isSorted()",
        "[1, 2, 3].sum() == 6 && ['b', 'a'].min() == 'a' && [1, 1].distinct() == [1]",
        "self.?name.orValue('') == 'web' && any.?nope.orValue(5) == 5 && !any.?nope.hasValue()",
        "optional.of(1).optMap(x, x + 1).value() == 2 && {?'a': any.?nope} == {} && [?optional.of(1)] == [1]",
        "'a.b.c'.split('.') == ['a', 'b', 'c'] && 'hello'.substring(1, 3) == 'el' && 'abc'.charAt(1) == 'b'",
        "'%s has %d of %.1f'.format(['x', 2, 1.55]) == 'x has 2 of 1.6' || true",
        "'abc'.matches('^[a-c]+$') && 'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22']",
        "'tacocat'.indexOf('c') == 2 && 'tacocat'.lastIndexOf('c') == 4 && 'x'.upperAscii() == 'X'",
        "timestamp('2024-01-02T03:04:05Z').getFullYear() == 2024 && duration('90m').getHours() == 1",
        "timestamp('2024-01-01T00:00:00Z') + duration('24h') == timestamp('2024-01-02T00:00:00Z')",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('500m').add(quantity('0.5')).asInteger() == 1",
        "isQuantity('1Mi') && !isQuantity('x') && quantity('-1').sign() == -1",
        "url('https://a.b:80/c?d=e&d=f').getHostname() == 'a.b' && url('https://a:80/').getPort() == '80'",
        "url('https://a/c?d=e&d=f').getQuery()['d'] == ['e', 'f'] && !isURL('a b') && isURL('/x')",
        "ip('10.1.2.3').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3') && !isIP('10.1')",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v1.2', true).patch() == 0",
        "!format.dns1123Label().validate('ok').hasValue() && format.dns1123Label().validate('No').hasValue()",
        "format.named('uuid').value().validate('x').value() == ['does not match the UUID format']",
        "sets.contains([1, 2, 3], [1, 2]) && sets.equivalent([1, 2], [2, 1]) && sets.intersects([1], [1, 2])",
        "cel.bind(x, self.replicas * 2, x + x) == 12",
        "type(1) == int && type(self.list) == list && type('a') != bytes",
        "r'\\d' == '\\\\d' && b'ab'.size() == 2 && '\\u00e9'.size() == 1 && '''a\nb'''.size() == 3",
        "true || any.nope && !(false && any.nope) && [1, 2].exists(x, x == 2 || any.nope)",
        "any.__in__ && any.l[1] == 1 && any['n'] == 1",
        "{'a': 1, 2: 'b', true: null}[2] == 'b' || true",
        "self.replicas == 3 ? true : any.nope",
        "string(1.0) == '1' && string(true) == 'true' && int('5') == 5 && double('1.5') == 1.5 && bool('true')",
        "9223372036854775807 == 0x7fffffffffffffff && -9223372036854775808 < 0 && 1e3 == 1000.0",
        "// what is behind two strokes is for people\ntrue",
        "lists.range(3) == [0, 1, 2] && [[1], [2]].flatten() == [1, 2] && [1, 2, 3].slice(1, 2) == [2]",
        "jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'",
    ] {
        match run(expression) {
            Ok(Value::Bool(true)) => {}
            other => panic!("{expression}: {other:?}"),
        }
    }
}

#[test]
fn what_is_wrong_is_found_before_it_runs() {
    for (expression, expected) in [
        ("nope", "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope\n | ^"),
        ("self.nope == 1", "ERROR: <input>:1:5: undefined field 'nope'\n | self.nope == 1\n | ....^"),
        ("self.replicas == 'x'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("self.replicas + 1.0", "found no matching overload for '_+_' applied to '(int, double)'"),
        ("self.name.frob()", "undeclared reference to 'frob'"),
        ("self.name.sum()", "found no matching overload for 'sum' applied to 'string.()'"),
        ("self.replicas && true", "expected type 'bool' but found 'int'"),
        ("self.replicas.all(x, true)", "cannot be range of a comprehension"),
        ("1 +", "Syntax error: mismatched input '<EOF>'"),
        ("(1", "Syntax error: mismatched input '<EOF>' expecting ')'"),
        ("'a", "Syntax error"),
        ("1 2", "extraneous input"),
        ("has(self)", "invalid argument to has() macro"),
        ("for", "reserved identifier"),
        ("'a'.matches('(')", "invalid matches argument"),
        ("duration('x') == duration('1s')", "invalid duration argument"),
        ("true\n&& nope", "ERROR: <input>:2:4: undeclared reference to 'nope' (in container '')\n | && nope\n | ...^"),
    ] {
        let error = run(expression).err().unwrap_or_else(|| panic!("{expression} is taken"));
        assert!(error.contains(expected), "{expression}: {error}");
    }
}

#[test]
fn errors_while_running_are_told() {
    for (expression, expected) in [
        ("any.nope == 1", "no such key: nope"),
        ("any.l[7] == 1", "index out of bounds: 7"),
        ("1 / (self.replicas - 3) == 1", "division by zero"),
        ("9223372036854775807 + self.replicas == 1", "integer overflow"),
        ("any.n + 'a' == ''", "no such overload"),
        ("quantity(self.name).sign() == 1", "quantities must match the regular expression"),
        ("optional.none().value() == 1", "optional.none() dereference"),
        ("{'a': 1, 'a': 2} == {}", "Failed with repeated key: a"),
    ] {
        let error = run(expression).err().unwrap_or_else(|| panic!("{expression} has a value"));
        assert!(error.contains(expected), "{expression}: {error}");
    }
}

#[test]
fn hostile_expressions_end_early() {
    let list = format!("[{}]", (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let nested = (0..6).fold("true".to_owned(), |inner, n| format!("{list}.all(x{n}, {inner})"));
    let doubling = (0..60).fold("x".to_owned(), |inner, _| format!("cel.bind(x, x + x, {inner})"));
    let doubling = format!("cel.bind(x, '0123456789', {doubling}).size() > 0");
    let lists = (0..60).fold("x".to_owned(), |inner, _| format!("cel.bind(x, x + x, {inner})"));
    let lists = format!("cel.bind(x, [1, 2, 3], {lists}).size() > 0");
    for expression in [&nested, &doubling, &lists] {
        let begun = Instant::now();
        let Ok(program) = compile(expression, &environment()) else { continue };
        let none: [(&str, Value); 0] = [];
        let error = program.run(&none, &mut Budget::new(PER_CALL_LIMIT)).unwrap_err();
        assert!(error.is_stop() || error.message.contains("too long"), "{}", error.message);
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    let late = Budget::new(u64::MAX).until(Instant::now());
    let none: [(&str, Value); 0] = [];
    let error = compile(&nested, &environment()).unwrap().run(&none, &mut late.clone()).unwrap_err();
    assert_eq!(error.failure, Failure::Deadline);
}

#[test]
fn deep_and_long_texts_are_refused_not_overflowing() {
    for text in [
        "(".repeat(50_000),
        "-".repeat(50_000) + "a",
        "!".repeat(50_000) + "a",
        "[".repeat(50_000),
        "a".to_owned() + &".b".repeat(30_000),
        "1".to_owned() + &"+1".repeat(40_000),
        "a?".repeat(20_000),
        "x".repeat(200_000),
    ] {
        assert!(compile(&text, &environment()).is_err(), "{}", text.get(..20).unwrap());
    }
    // A long condition is no deep one.
    assert!(compile(&vec!["true"; 5000].join(" && "), &environment()).is_ok());
}

#[test]
fn rules_of_definitions_in_use_are_cheap_enough() {
    // Kubernetes' limit for all runs of a rule is ten million; these run for each of many items.
    let map = Type::Map(Box::new(Type::Text(0)), Box::new(Type::Text(4096)), 16);
    let environment = Environment::new().with("labels", map).with("text", Type::text()).with("other", Type::text());
    for (expression, most) in [
        ("labels.all(key, key.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?)*/?[A-Za-z0-9][-A-Za-z0-9_.]{0,61}$'))", 1000),
        ("labels.all(key, key.split('/')[0].size() < 253)", 1000),
        ("duration(text).getSeconds() >= 1 && duration(text).getSeconds() <= 65535", 20),
        ("duration(text) != duration('0s') && duration(text) > duration(other)", 20),
        ("timestamp(text) == timestamp(other)", 20),
        ("int(text) > 5 || double(text) < 3.0 || uint(text) == 7u", 20),
        ("size(text) == 0 || format.dns1123Label().validate('a') == null", 50),
        ("quantity('1Gi') == quantity('2Gi')", 20),
    ] {
        let program = compile(expression, &environment).unwrap_or_else(|why| panic!("{expression}: {why}"));
        assert!(program.cost() <= most, "{expression}: {}", program.cost());
    }
}

#[test]
fn cost_grows_with_what_may_come() {
    let cost = |expression: &str| compile(expression, &environment()).unwrap().cost();
    assert!(cost("self.replicas > 1") < 10);
    assert!(cost("self.list.all(x, x == 'a')") < 1000);
    assert!(cost("self.map.all(a, self.map.all(b, a == b))") > 10_000_000);
    assert!(cost("self.name.matches('^a$')") < 100 && cost("self.map.all(k, self.map[k].matches('^a$'))") > 10_000_000);
}

#[test]
fn sets_are_equal_in_any_order_and_joined_without_repeats() {
    let list = Type::list(Type::text());
    let environment = Environment::new().with("a", list.clone()).with("b", list.clone());
    let set = |json| Value::typed(&json, &list, &ListKind::Set);
    let variables = [("a", set(json!(["x", "y"]))), ("b", set(json!(["y", "x"])))];
    for expression in ["a == b", "(a + b).size() == 2"] {
        let result = compile(expression, &environment).unwrap().run(&variables, &mut Budget::new(1000));
        assert!(matches!(result, Ok(Value::Bool(true))), "{expression}: {result:?}");
    }
}
