//! The house rules that neither the compiler nor clippy can see, checked over the whole tree.
//!
//! Each rule is a function from a file's path and text to what is wrong in it, so that the tests at the end of this
//! file can show every rule a text that breaks it. A rule that finds nothing there would find nothing anywhere.

use std::fs;
use std::path::Path;

/// Where the subjects of the bus are spelled, and nowhere else.
const SUBJECT_FILE: &str = "bus-schema/src/subject.rs";
/// The files that belong to it.
const SUBJECT_ROOM: &str = "bus-schema/src/subject/";
const SUBJECT_PREFIXES: [&str; 11] = [
    "mcp.rpc",
    "mcp.inst",
    "mcp.cancel",
    "mcp.evt",
    "mcp.gw",
    "mcp.pub",
    "mcp.task",
    "mcp.watch",
    "$SRV",
    "$SYS",
    "_INBOX",
];

/// Where the names of HTTP and NATS headers are spelled.
const HEADER_FILE: &str = "bus-schema/src/header.rs";
const HEADER_NAMES: [&str; 8] = [
    "mcp-protocol-version",
    "mcp-session-id",
    "mcp-method",
    "mcp-name",
    "last-event-id",
    "nats-request-info",
    "nats-msg-id",
    "traceparent",
];
const HEADER_PREFIXES: [&str; 1] = ["mcp-param-"];
/// MCP writes the trace context as a key of `_meta` too, under the header's own name.
const META_KEYS: [&str; 1] = ["traceparent"];
const META_FOLDER: &str = "bus-schema/src/mcp/";

/// Who may read the environment. Tests and build scripts may as well.
// The upstream bridge reads names only, to keep the platform's own variables from the children that it starts.
const CONFIG_FILES: [&str; 2] = ["cli/src/config.rs", "bridges/src/upstream/environment.rs"];

const MOST_CODE_LINES: usize = 400;

/// The crates of the workspace: folder, package, and the packages of the workspace that it may name.
const GRAPH: [(&str, &str, &[&str]); 6] = [
    ("bus-schema", "bus-schema", &[]),
    ("runtime", "runtime", &["bus-schema"]),
    ("actors", "actors", &["bus-schema", "runtime"]),
    ("bridges", "bridges", &["bus-schema", "runtime"]),
    (
        "cli",
        "trunkline",
        &["bus-schema", "runtime", "actors", "bridges"],
    ),
    (
        "tests",
        "tests",
        &["bus-schema", "runtime", "actors", "bridges", "trunkline"],
    ),
];
/// The one crate that may speak to NATS.
const NATS_FOLDER: &str = "runtime";

/// Hosts of package registries, in pieces so that this file does not name them. A clone has to build behind any mirror.
const REGISTRY_HOSTS: [&str; 7] = [
    concat!("registry.", "npmjs", ".org"),
    concat!("registry.", "yarnpkg", ".com"),
    concat!("py", "pi.org"),
    concat!("files.", "python", "hosted.org"),
    concat!("static.", "crates", ".io"),
    concat!("index.", "crates", ".io"),
    concat!("proxy.", "golang", ".org"),
];

/// Folders that hold what was built, fetched or run: everything `.gitignore` names.
const UNTRACKED: [&str; 6] = [
    "target",
    ".cache",
    ".trunkline",
    "node_modules",
    "__pycache__",
    ".git",
];

#[test]
fn subjects_are_spelled_in_one_file() {
    hold(rust_files(), subjects_spelled_elsewhere);
}

#[test]
fn header_names_are_spelled_in_one_file() {
    hold(rust_files(), headers_spelled_elsewhere);
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    hold(rust_files(), too_many_code_lines);
}

#[test]
fn every_file_opens_with_its_purpose() {
    hold(rust_files(), missing_purpose);
}

#[test]
fn manifests_follow_the_dependency_graph() {
    hold(
        files(&|path| path.ends_with("Cargo.toml")),
        edges_outside_the_graph,
    );
}

#[test]
fn only_the_config_module_reads_the_environment() {
    hold(rust_files(), environment_read_elsewhere);
}

#[test]
fn no_file_names_the_host_of_a_package_registry() {
    hold(files(&|_| true), registry_hosts);
}

/// What is wrong at a line, and what would be right.
#[derive(Debug)]
struct Finding {
    line: usize,
    wrong: String,
}

fn finding(line: usize, wrong: String) -> Finding {
    Finding { line, wrong }
}

/// Fails with every place where one of the files breaks the rule.
fn hold(files: Vec<(String, String)>, rule: fn(&str, &str) -> Vec<Finding>) {
    assert!(!files.is_empty(), "the walk over the tree found no file to check");
    let mut broken = String::new();
    for (path, text) in files {
        for Finding { line, wrong } in rule(&path, &text) {
            broken += &format!("\n{path}:{line}: {wrong}");
        }
    }
    assert!(broken.is_empty(), "{broken}\n");
}

// The tree.

fn rust_files() -> Vec<(String, String)> {
    files(&|path| path.ends_with(".rs"))
}

/// The wanted files of the project as their path from its root and their text.
fn files(wanted: &dyn Fn(&str) -> bool) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the test crate lies in the project's root");
    let mut found = Vec::new();
    walk(root, "", wanted, &mut found);
    found.sort();
    found
}

fn walk(folder: &Path, prefix: &str, wanted: &dyn Fn(&str) -> bool, found: &mut Vec<(String, String)>) {
    // A folder may vanish while it is read: another test cleans up after itself.
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            // Cargo marks a target folder of another name with this file.
            let built = entry.path().join("CACHEDIR.TAG").exists();
            if !built && !UNTRACKED.contains(&name.as_str()) {
                walk(&entry.path(), &format!("{path}/"), wanted, found);
            }
        } else if kind.is_file()
            && wanted(&path)
            && let Ok(bytes) = fs::read(entry.path())
        {
            found.push((path, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}

/// Whether a file is test code as a whole.
fn is_test_code(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || path
            .split('/')
            .any(|part| ["tests", "benches", "fuzz"].contains(&part))
}

// The rules.

fn subjects_spelled_elsewhere(path: &str, text: &str) -> Vec<Finding> {
    if path == SUBJECT_FILE || path.starts_with(SUBJECT_ROOM) || is_test_code(path) {
        return Vec::new();
    }
    let begins_like = |literal: &str, prefix: &str| {
        let rest = literal.strip_prefix(prefix)?.chars().next();
        (!rest.is_some_and(char::is_alphanumeric)).then_some(())
    };
    let mut found = Vec::new();
    for (line, literal) in Scan::of(text).without_test_module().literals {
        if SUBJECT_PREFIXES
            .iter()
            .any(|prefix| begins_like(&literal, prefix).is_some())
        {
            found.push(finding(
                line,
                format!("\"{literal}\" is a subject; build or parse it with a function in {SUBJECT_FILE}"),
            ));
        }
    }
    found
}

fn headers_spelled_elsewhere(path: &str, text: &str) -> Vec<Finding> {
    if path == HEADER_FILE || is_test_code(path) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (line, literal) in Scan::of(text).without_test_module().literals {
        let name = literal.to_ascii_lowercase();
        let is_header = HEADER_NAMES.contains(&name.as_str())
            || HEADER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let is_meta_key = path.starts_with(META_FOLDER) && META_KEYS.contains(&name.as_str());
        if is_header && !is_meta_key {
            found.push(finding(
                line,
                format!("\"{literal}\" is the name of a header; use the constant in {HEADER_FILE}"),
            ));
        }
    }
    found
}

fn too_many_code_lines(path: &str, text: &str) -> Vec<Finding> {
    if is_test_code(path) {
        return Vec::new();
    }
    let scan = Scan::of(text).without_test_module();
    let code_lines = scan.code_lines();
    let Some(first_too_many) = code_lines.get(MOST_CODE_LINES) else {
        return Vec::new();
    };
    let wrong = format!(
        "{} lines of code, and {MOST_CODE_LINES} are the most (blank lines, comments and the test module not \
         counted); give one of its nouns a file of its own",
        code_lines.len()
    );
    vec![finding(*first_too_many, wrong)]
}

fn missing_purpose(_path: &str, text: &str) -> Vec<Finding> {
    if text.starts_with("//! ") {
        return Vec::new();
    }
    let wrong = "the first line is not `//!` with a sentence that says what lives here".to_owned();
    vec![finding(1, wrong)]
}

fn edges_outside_the_graph(path: &str, text: &str) -> Vec<Finding> {
    let folder = path.trim_end_matches("Cargo.toml").trim_end_matches('/');
    let known = GRAPH.iter().find(|(known, _, _)| *known == folder);
    let mut found = Vec::new();
    for (line, name) in dependencies(text) {
        if name == "async-nats" && folder != NATS_FOLDER {
            let wrong = format!("only {NATS_FOLDER} may name async-nats; use what {NATS_FOLDER} offers");
            found.push(finding(line, wrong));
        }
        if folder == "bus-schema" && name.starts_with("tokio") {
            let wrong =
                format!("bus-schema does no I/O and may not name {name}; put what needs it into runtime");
            found.push(finding(line, wrong));
        }
        let Some((_, _, may_name)) = known else { continue };
        let is_ours = GRAPH.iter().any(|(_, package, _)| *package == name);
        if is_ours && !may_name.contains(&name.as_str()) {
            let may = if may_name.is_empty() {
                "none of ours".to_owned()
            } else {
                may_name.join(", ")
            };
            let wrong = format!(
                "{folder} may not depend on {name}, only on: {may}; actors and bridges meet on the bus"
            );
            found.push(finding(line, wrong));
        }
    }
    found
}

fn environment_read_elsewhere(path: &str, text: &str) -> Vec<Finding> {
    if CONFIG_FILES.contains(&path) || path.ends_with("build.rs") || is_test_code(path) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (index, code) in Scan::of(text).without_test_module().code.iter().enumerate() {
        if code.contains("env::var") {
            let wrong = format!(
                "the environment is read here; read it in {} and pass it in",
                CONFIG_FILES[0]
            );
            found.push(finding(index + 1, wrong));
        }
    }
    found
}

fn registry_hosts(_path: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.to_ascii_lowercase();
        for host in REGISTRY_HOSTS.iter().filter(|host| line.contains(*host)) {
            let wrong =
                format!("{host} is the host of a package registry; leave it to each machine's own settings");
            found.push(finding(index + 1, wrong));
        }
    }
    found
}

/// The packages that a manifest depends on, each with its line. The root's list of versions does not count.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    const TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    let mut found = Vec::new();
    let mut in_table = false;
    for (index, line) in manifest.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            let (before, last) = header.rsplit_once('.').unwrap_or(("", header));
            in_table = TABLES.contains(&last) && before != "workspace";
            // `[dependencies.name]` names one package in its own header.
            let parent = before.rsplit('.').next().unwrap_or_default();
            if TABLES.contains(&parent) && !before.starts_with("workspace") {
                found.push((index + 1, unquoted(last)));
            }
        } else if in_table && let Some((name, rest)) = line.split_once(['=', '.']) {
            found.push((index + 1, unquoted(name)));
            // A package may stand under another name.
            if let Some((_, renamed)) = rest.split_once("package") {
                found.push((
                    index + 1,
                    renamed.split('"').nth(1).unwrap_or_default().to_owned(),
                ));
            }
        }
    }
    found
}

fn unquoted(name: &str) -> String {
    name.trim().trim_matches('"').to_owned()
}

// Reading Rust.

/// A Rust file taken apart as far as the rules need it.
struct Scan {
    /// Each line without comments and without what stands inside quotes.
    code: Vec<String>,
    /// What stands inside quotes, as it is written there, with the line it begins on.
    literals: Vec<(usize, String)>,
}

impl Scan {
    fn of(text: &str) -> Self {
        let mut reader = Reader {
            rest: text,
            scan: Self {
                code: vec![String::new()],
                literals: Vec::new(),
            },
        };
        while !reader.rest.is_empty() {
            reader.step();
        }
        reader.scan
    }

    /// Leaves out everything from `#[cfg(test)] mod tests` on.
    fn without_test_module(mut self) -> Self {
        let is_attribute = |line: &String| line.trim() == "#[cfg(test)]";
        let mut from = 0;
        while let Some(offset) = self.code[from..].iter().position(is_attribute) {
            let attribute = from + offset;
            let next = self.code[attribute + 1..]
                .iter()
                .find(|line| !line.trim().is_empty());
            if next.is_some_and(|line| line.trim().starts_with("mod tests")) {
                self.code.truncate(attribute);
                self.literals.retain(|(line, _)| *line <= attribute);
                break;
            }
            from = attribute + 1;
        }
        self
    }

    /// The numbers of the lines that hold code.
    fn code_lines(&self) -> Vec<usize> {
        (1..)
            .zip(&self.code)
            .filter(|(_, code)| !code.trim().is_empty())
            .map(|(line, _)| line)
            .collect()
    }
}

/// What is still unread, and what was read.
struct Reader<'a> {
    rest: &'a str,
    scan: Scan,
}

impl Reader<'_> {
    fn step(&mut self) {
        if self.rest.starts_with("//") {
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.skip(block_comment(self.rest));
        } else if let Some((opening, literal, closing)) = self.literal() {
            self.take(opening);
            let line = self.scan.code.len();
            self.scan.literals.push((line, self.rest[..literal].to_owned()));
            self.skip_literal(literal);
            self.take(closing);
        } else if let Some(length) = char_literal(self.rest) {
            self.skip(length);
            self.take_text("''");
        } else {
            self.take(self.rest.chars().next().map_or(0, char::len_utf8));
        }
    }

    /// The lengths of a string literal's opening, content and closing, if the rest begins with one.
    fn literal(&self) -> Option<(usize, usize, usize)> {
        if let Some(content) = self.rest.strip_prefix('"') {
            return Some((1, end_of_escaped(content), 1.min(content.len())));
        }
        // `r` is the prefix of a raw string only where no name ends with it; `br` and `cr` begin the same.
        let hashes = self.rest.strip_prefix('r')?;
        let before = self.scan.code.last()?.trim_end_matches(['b', 'c']).chars().last();
        if before.is_some_and(|before| before.is_alphanumeric() || before == '_') {
            return None;
        }
        let depth = hashes.len() - hashes.trim_start_matches('#').len();
        let content = hashes[depth..].strip_prefix('"')?;
        let closing = format!("\"{}", "#".repeat(depth));
        let length = content.find(&closing).unwrap_or(content.len());
        Some((depth + 2, length, closing.len().min(content.len() - length)))
    }

    /// Reads over a comment: nothing of it stays but the line ends.
    fn skip(&mut self, length: usize) {
        let (skipped, rest) = self.rest.split_at(length);
        self.rest = rest;
        for _ in skipped.matches('\n') {
            self.scan.code.push(String::new());
        }
    }

    /// Reads over the content of a literal. A line that holds only such content is a line of code all the same.
    fn skip_literal(&mut self, length: usize) {
        let (skipped, rest) = self.rest.split_at(length);
        self.rest = rest;
        for line in skipped.split('\n').skip(1) {
            let mark = if line.trim().is_empty() { "" } else { "\"" };
            self.scan.code.push(mark.to_owned());
        }
    }

    fn take(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.take_text(taken);
    }

    fn take_text(&mut self, text: &str) {
        for piece in text.split_inclusive('\n') {
            if let Some(line) = self.scan.code.last_mut() {
                line.push_str(piece.trim_end_matches('\n'));
            }
            if piece.ends_with('\n') {
                self.scan.code.push(String::new());
            }
        }
    }
}

/// The length of the block comment that the text begins with; such comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Where the quote stands that ends a string with escapes.
fn end_of_escaped(content: &str) -> usize {
    let mut escaped = false;
    for (at, character) in content.char_indices() {
        match character {
            '"' if !escaped => return at,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    content.len()
}

/// The length of the character literal that the text begins with; a lifetime is none.
fn char_literal(text: &str) -> Option<usize> {
    let content = text.strip_prefix('\'')?;
    let first = content.chars().next()?;
    if first == '\\' {
        // The escaped character itself may be a quote.
        let from = 1 + content[1..].chars().next()?.len_utf8();
        return Some(1 + from + content[from..].find('\'')? + 1);
    }
    content[first.len_utf8()..]
        .starts_with('\'')
        .then(|| first.len_utf8() + 2)
}

// Each rule, shown what it has to find and what it has to leave alone.

/// Asserts at which lines of the text the rule finds something.
#[track_caller]
fn check(rule: fn(&str, &str) -> Vec<Finding>, path: &str, text: &str, expected: &[usize]) {
    let found = rule(path, text);
    let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, expected, "{path}: {found:?} in\n{text}");
}

#[test]
fn a_stray_subject_is_found() {
    let rule = subjects_spelled_elsewhere;
    let elsewhere = "runtime/src/host.rs";
    check(rule, elsewhere, "//! x\nlet s = \"mcp.rpc.default\";", &[2]);
    check(rule, elsewhere, "let s = format!(\"mcp.gw.{gateway}.>\");", &[1]);
    check(
        rule,
        elsewhere,
        "let s = r#\"$SYS.ACCOUNT\"#;\nlet t = b\"_INBOX\";\nlet u = br\"$SRV.PING\";",
        &[1, 2, 3],
    );
    check(rule, elsewhere, "let quote = '\"';\nlet s = \"mcp.evt.a\";", &[2]);
    check(
        rule,
        elsewhere,
        "let s = \"\n\n\";\nlet s = \"mcp.watch.a\";",
        &[4],
    );
    check(
        rule,
        elsewhere,
        "#[cfg(test)]\nuse a::b;\nlet s = \"mcp.task\";",
        &[3],
    );
    check(rule, SUBJECT_FILE, "let s = \"mcp.rpc.default\";", &[]);
    check(
        rule,
        "bus-schema/src/subject/services.rs",
        "let s = \"$SRV\";",
        &[],
    );
    check(rule, "tests/src/lib.rs", "let s = \"mcp.rpc.default\";", &[]);
    check(
        rule,
        "bus-schema/tests/golden.rs",
        "let s = \"mcp.rpc.default\";",
        &[],
    );
    check(
        rule,
        elsewhere,
        "// \"mcp.rpc.a\"\n/* \"mcp.rpc.a\" /* \" */ \"mcp.rpc.a\" */",
        &[],
    );
    check(
        rule,
        elsewhere,
        "let s = \"mcp.method.name\"; let t = \"mcp.publisher\"; let u = \"see mcp.rpc\";",
        &[],
    );
    check(
        rule,
        elsewhere,
        "fn a<'a>(b: &'a str) {}\n\n#[cfg(test)]\nmod tests {\n    const S: &str = \"mcp.rpc.a\";\n}",
        &[],
    );
}

#[test]
fn a_stray_header_name_is_found() {
    let rule = headers_spelled_elsewhere;
    let elsewhere = "bridges/src/http/mod.rs";
    check(
        rule,
        elsewhere,
        "get(\"Mcp-Session-Id\");\nget(\"mcp-param-city\");\nget(b\"Nats-Msg-Id\");",
        &[1, 2, 3],
    );
    check(rule, elsewhere, "const T: &str = \"traceparent\";", &[1]);
    check(rule, HEADER_FILE, "const T: &str = \"traceparent\";", &[]);
    check(
        rule,
        "bus-schema/src/mcp/meta.rs",
        "const T: &str = \"traceparent\";",
        &[],
    );
    check(
        rule,
        "bus-schema/src/mcp/meta.rs",
        "const T: &str = \"mcp-name\";",
        &[1],
    );
    check(
        rule,
        elsewhere,
        "// \"mcp-name\"\nlet s = \"the header mcp-name is missing\";",
        &[],
    );
}

#[test]
fn a_file_that_is_too_long_is_found() {
    let rule = too_many_code_lines;
    let full = "let a = 1;\n".repeat(MOST_CODE_LINES);
    check(rule, "runtime/src/call.rs", &full, &[]);
    check(
        rule,
        "runtime/src/call.rs",
        &format!("//! x\n\n// y\n{full}}}\n"),
        &[MOST_CODE_LINES + 4],
    );
    check(
        rule,
        "runtime/src/call.rs",
        &format!("{full}let s = \"\n  text\n\";"),
        &[MOST_CODE_LINES + 1],
    );
    check(
        rule,
        "runtime/src/call.rs",
        &format!("{full}\n// a\n/*\nb\n*/\n#[cfg(test)]\nmod tests {{\n}}\n"),
        &[],
    );
    check(rule, "tests/tests/suite/call.rs", &format!("{full}{full}"), &[]);
}

#[test]
fn a_file_without_its_purpose_is_found() {
    check(
        missing_purpose,
        "cli/src/main.rs",
        "use std::fs;\n//! late\n",
        &[1],
    );
    check(missing_purpose, "cli/src/main.rs", "\n//! late\n", &[1]);
    check(missing_purpose, "cli/src/main.rs", "//!\n", &[1]);
    check(missing_purpose, "cli/src/main.rs", "//! The program.\n", &[]);
}

#[test]
fn an_edge_outside_the_graph_is_found() {
    let rule = edges_outside_the_graph;
    let schema = "bus-schema/Cargo.toml";
    check(
        rule,
        schema,
        "[dependencies]\ntokio.workspace = true\n[dev-dependencies]\ntokio-util = \"1\"",
        &[2, 4],
    );
    check(
        rule,
        schema,
        "[dependencies]\nnats = { version = \"1\", package = \"async-nats\" }\n",
        &[2],
    );
    check(
        rule,
        "actors/Cargo.toml",
        "[dependencies]\nruntime.workspace = true\nbridges.workspace = true",
        &[3],
    );
    check(
        rule,
        "bridges/Cargo.toml",
        "[dependencies.actors]\nworkspace = true",
        &[1],
    );
    check(
        rule,
        "runtime/Cargo.toml",
        "[dependencies]\nasync-nats.workspace = true\ntrunkline = \"1\"",
        &[3],
    );
    check(
        rule,
        "tests/Cargo.toml",
        "[target.'cfg(unix)'.dependencies]\n\"async-nats\" = \"1\"",
        &[2],
    );
    check(
        rule,
        "bus-schema/fuzz/Cargo.toml",
        "[dependencies]\nasync-nats = \"1\"",
        &[2],
    );
    check(
        rule,
        "Cargo.toml",
        "[workspace.dependencies]\nasync-nats = \"1\"\nactors = { path = \"actors\" }",
        &[],
    );
    check(
        rule,
        schema,
        "[package]\nname = \"bus-schema\" # no tokio\n[dependencies]\n# tokio = \"1\"\n",
        &[],
    );
}

#[test]
fn a_stray_read_of_the_environment_is_found() {
    let rule = environment_read_elsewhere;
    check(
        rule,
        "runtime/src/bus.rs",
        "let a = std::env::var(\"A\");\nuse std::env::var_os;",
        &[1, 2],
    );
    check(rule, CONFIG_FILES[0], "let a = std::env::var(\"A\");", &[]);
    check(rule, "cli/build.rs", "let a = env::var(\"A\");", &[]);
    check(rule, "tests/src/lib.rs", "let a = env::var(\"A\");", &[]);
    check(
        rule,
        "runtime/src/bus.rs",
        "// env::var\nlet a = \"env::var\"; let b = env!(\"A\"); let c = env::args();",
        &[],
    );
}

#[test]
fn the_host_of_a_registry_is_found() {
    for host in REGISTRY_HOSTS {
        let locked = format!("{{\n  \"resolved\": \"https://{}/a\"\n}}", host.to_uppercase());
        check(registry_hosts, "tests/npm/package-lock.json", &locked, &[2]);
    }
    check(
        registry_hosts,
        "Cargo.lock",
        "source = \"registry+https://github.com/rust-lang/crates.io-index\"",
        &[],
    );
}
