//! Resolves the names in a file to the files that define them.
//!
//! It covers a small part of the compiler's name resolution: modules, `use` with lists, `as` and
//! `*`, re-exports. It sees no methods and no fields, so a file that only calls methods of a value
//! does not name the file of their `impl`. It sees no names that a macro makes. A path that begins
//! with `crate`, `self` or `super` and leads nowhere fails the test.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, Token, module, tokens};

/// A module: a file, or a `mod name { .. }` inside of a file.
#[derive(Default)]
struct Module {
    file: usize,
    /// Its own items, without modules.
    items: BTreeSet<String>,
    traits: BTreeSet<String>,
    imports: Vec<Import>,
    /// Paths in its code, outside of `use`, with their lines.
    paths: Vec<(Vec<String>, usize)>,
}

/// One name of a `use`.
struct Import {
    name: String,
    path: Vec<String>,
    is_public: bool,
    line: usize,
}

/// All modules, by their paths from the crate's root.
pub(crate) struct Names {
    modules: BTreeMap<Vec<String>, Module>,
}

/// An item, and its module. Without a name it is the module itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    module: Vec<String>,
    name: String,
}

impl Names {
    pub(crate) fn of(sources: &[&Source]) -> Self {
        let mut modules = BTreeMap::new();
        for (file, source) in sources.iter().enumerate() {
            Reader { file, tokens: tokens(&source.code), at: 0, modules: &mut modules }
                .read(module_path(&source.name()));
        }
        Self { modules }
    }

    /// Returns the files whose items a file's code names: their indices, an item of each, and the
    /// line of its first name.
    ///
    /// A re-export is not code, and neither is a `use` that only children read.
    pub(crate) fn named_by(&self, file: usize) -> BTreeMap<usize, (String, usize)> {
        let mut named = BTreeMap::new();
        let mut note = |item: Item, line| {
            let target = self.modules[&item.module].file;
            // A module alone is a prefix: the paths through it have their own edges.
            if target != file && !item.name.is_empty() {
                named.entry(target).or_insert((item.name, line));
            }
        };
        for (at, module) in self.modules.iter().filter(|(_, module)| module.file == file) {
            for import in module.imports.iter().filter(|import| !import.is_public) {
                // A trait need not be named again to be used: its methods are called.
                for item in self.find(at, &import.path, import.line) {
                    if import.name == "_" || self.modules[&item.module].traits.contains(&item.name) {
                        note(item, import.line);
                    }
                }
            }
            for (path, line) in &module.paths {
                for item in self.find(at, path, *line) {
                    note(item, *line);
                }
            }
        }
        named
    }

    /// [`resolve`](Self::resolve), with the assertion that a path inside of the crate leads
    /// somewhere.
    fn find(&self, module: &[String], path: &[String], line: usize) -> BTreeSet<Item> {
        let found = self.resolve(module, path);
        let is_ours = ["crate", "self", "super"].contains(&&*path[0]) && path.len() > 1;
        assert!(!found.is_empty() || !is_ours, "{module:?}, line {line}: this reader does not find {path:?}");
        found
    }

    /// Returns the items that a path in this module names: several where `cfg` chooses, none for an
    /// item of another crate.
    fn resolve(&self, module: &[String], path: &[String]) -> BTreeSet<Item> {
        let mut found = BTreeSet::new();
        self.follow(module, path, &mut BTreeSet::new(), &mut found);
        found
    }

    fn follow(
        &self,
        module: &[String],
        path: &[String],
        seen: &mut BTreeSet<(Vec<String>, Vec<String>)>,
        found: &mut BTreeSet<Item>,
    ) {
        if !seen.insert((module.to_vec(), path.to_vec())) {
            return;
        }
        let Some((first, rest)) = path.split_first() else {
            found.insert(Item { module: module.to_vec(), name: String::new() });
            return;
        };
        let child: Vec<String> = module.iter().chain([first]).cloned().collect();
        let here = &self.modules[module];
        match &**first {
            "crate" => self.follow(&[], rest, seen, found),
            "self" => self.follow(module, rest, seen, found),
            "super" => self.follow(module.split_last().map_or(module, |(_, parent)| parent), rest, seen, found),
            name if here.items.contains(name) => {
                found.insert(Item { module: module.to_vec(), name: first.clone() });
            }
            _ if self.modules.contains_key(&child) => self.follow(&child, rest, seen, found),
            name => {
                for import in here.imports.iter().filter(|import| import.name == name || import.name == "*") {
                    let passed_on = if import.name == "*" { path } else { rest };
                    let whole: Vec<String> = import.path.iter().chain(passed_on).cloned().collect();
                    self.follow(module, &whole, seen, found);
                }
            }
        }
    }
}

/// The path of the module that a file is.
fn module_path(file: &str) -> Vec<String> {
    module(file).split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Words after which the name of an item comes.
const DECLARATIONS: &[&str] = &["struct", "enum", "union", "trait", "fn", "type", "const", "static", "macro_rules"];

/// Reads a file's modules.
struct Reader<'a> {
    file: usize,
    tokens: Vec<Token<'a>>,
    at: usize,
    modules: &'a mut BTreeMap<Vec<String>, Module>,
}

impl Reader<'_> {
    /// Reads up to the end of a module.
    fn read(&mut self, path: Vec<String>) {
        let mut module = Module { file: self.file, ..Module::default() };
        let mut depth = 0;
        while self.at < self.tokens.len() {
            match self.text(0) {
                "#" if self.text(1) == "[" || self.text(2) == "[" => self.skip_attribute(),
                "use" => self.read_use(&mut module.imports),
                "mod" if self.text(2) == "{" => {
                    let inner = path.iter().cloned().chain([self.text(1).to_owned()]).collect();
                    self.at += 3;
                    self.read(inner);
                }
                "mod" => self.at += 2,
                "{" => {
                    depth += 1;
                    self.at += 1;
                }
                "}" if depth == 0 => {
                    self.at += 1;
                    break;
                }
                "}" => {
                    depth -= 1;
                    self.at += 1;
                }
                word if is_word(word) => self.read_word(&mut module, depth),
                _ => self.at += 1,
            }
        }
        self.modules.insert(path, module);
    }

    /// The text of a token from here on, or nothing behind the last.
    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text)
    }

    fn skip_attribute(&mut self) {
        let mut depth = 0;
        while self.at < self.tokens.len() {
            match self.text(0) {
                "[" => depth += 1,
                "]" => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 && self.tokens[self.at - 1].text == "]" {
                break;
            }
        }
    }

    /// A declaration, or a path in the code.
    fn read_word(&mut self, module: &mut Module, depth: usize) {
        if depth == 0 && DECLARATIONS.contains(&self.text(0)) {
            let skipped = usize::from(self.text(0) == "macro_rules");
            let name = self.text(1 + skipped).to_owned();
            if self.text(0) == "trait" {
                module.traits.insert(name.clone());
            }
            // `const fn` and `const _`, `const { .. }`
            if is_word(&name) && !DECLARATIONS.contains(&&*name) && name != "_" {
                module.items.insert(name);
                self.at += 1 + skipped;
            }
            self.at += 1;
            return;
        }
        // A method or field of a value, or a path of another crate or of a type.
        let before = self.at.checked_sub(1).map_or("", |at| self.tokens[at].text);
        let two_before = self.at.checked_sub(2).map_or("", |at| self.tokens[at].text);
        let is_member = before == "." && two_before != ".";
        let line = self.tokens[self.at].line;
        let mut path = vec![self.text(0).to_owned()];
        self.at += 1;
        while self.text(0) == "::" && is_word(self.text(1)) {
            path.push(self.text(1).to_owned());
            self.at += 2;
        }
        if !is_member && before != "::" {
            module.paths.push((path, line));
        }
    }

    fn read_use(&mut self, imports: &mut Vec<Import>) {
        let is_public = self.is_public();
        self.at += 1;
        if self.text(0) == "::" || self.text(0) == "<" {
            // A path of another crate, or a bound of `impl Trait + use<..>`.
            return;
        }
        self.read_tree(&[], is_public, imports);
    }

    /// True if `pub` or `pub(..)` stands in front.
    fn is_public(&self) -> bool {
        let before = &self.tokens[..self.at];
        let before = match before.last() {
            Some(token) if token.text == ")" => {
                let opened = before.iter().rposition(|token| token.text == "(").unwrap_or(0);
                &before[..opened]
            }
            _ => before,
        };
        before.last().is_some_and(|token| token.text == "pub")
    }

    /// `a::b`, `a::{..}`, `a::*`, `a::b as c`.
    fn read_tree(&mut self, prefix: &[String], is_public: bool, imports: &mut Vec<Import>) {
        let mut path = prefix.to_vec();
        let line = self.tokens[self.at].line;
        loop {
            match self.text(0) {
                "{" => {
                    self.at += 1;
                    while self.text(0) != "}" {
                        self.read_tree(&path, is_public, imports);
                        if self.text(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "*" => {
                    self.at += 1;
                    imports.push(Import { name: "*".into(), path, is_public, line });
                    return;
                }
                word => {
                    assert!(is_word(word), "a `use` that this reader does not understand: {word:?} in line {line}");
                    // `{self}` is the module in front of it.
                    if word != "self" || path.is_empty() {
                        path.push(word.to_owned());
                    }
                    self.at += 1;
                }
            }
            if self.text(0) != "::" {
                break;
            }
            self.at += 1;
        }
        let mut name = path.last().unwrap().clone();
        if self.text(0) == "as" {
            name = self.text(1).to_owned();
            self.at += 2;
        }
        imports.push(Import { name, path, is_public, line });
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}
