//! What `#[entity(…)]` says, as it stands there.

use proc_macro2::Span;
use syn::ext::IdentExt as _;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, Expr, Ident, Lit, LitStr, Path, Result, Token, parenthesized, punctuated::Punctuated};

use crate::names;

const STRUCT_ATTRIBUTES: [&str; 6] = ["table", "undeclared", "history", "index", "unique_index", "crate"];
const TYPES: [&str; 7] = ["text", "integer", "real", "boolean", "timestamp", "json", "bytes"];
const FIELD_ATTRIBUTES: [&str; 16] = [
    "key",
    "partition",
    "version",
    "unique",
    "index",
    "default",
    "column",
    "skip",
    "rest",
    "text",
    "integer",
    "real",
    "boolean",
    "timestamp",
    "json",
    "bytes",
];

/// How many versions are kept.
pub(crate) enum HistoryAttribute {
    Keep(u32),
    All,
}

/// An index over several columns.
pub(crate) struct IndexAttribute {
    pub(crate) name: LitStr,
    pub(crate) columns: Vec<LitStr>,
    pub(crate) unique: bool,
}

/// The struct's attributes.
#[derive(Default)]
pub(crate) struct StructAttributes {
    pub(crate) table: Option<LitStr>,
    pub(crate) undeclared: bool,
    pub(crate) history: Option<HistoryAttribute>,
    pub(crate) indexes: Vec<IndexAttribute>,
    pub(crate) krate: Option<Path>,
}

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Key,
    Partition,
    Version,
    Skip,
    Rest,
    Column,
}

impl Role {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "key" => Self::Key,
            "partition" => Self::Partition,
            "version" => Self::Version,
            "skip" => Self::Skip,
            "rest" => Self::Rest,
            _ => return None,
        })
    }

    pub(crate) fn is_key(self) -> bool {
        matches!(self, Self::Key | Self::Partition)
    }
}

/// A field's attributes.
pub(crate) struct FieldAttributes {
    pub(crate) role: Role,
    pub(crate) kind: Option<Ident>,
    pub(crate) column: Option<LitStr>,
    pub(crate) unique: Option<Span>,
    pub(crate) index: Option<Span>,
    pub(crate) default: Option<Expr>,
}

fn entity_attributes<'a>(attributes: &'a [Attribute]) -> impl Iterator<Item = &'a Attribute> + 'a {
    attributes.iter().filter(|a| a.path().is_ident("entity"))
}

/// The attribute's name; `crate` is one too.
fn name_of(meta: &ParseNestedMeta<'_>) -> String {
    meta.path.get_ident().map(|ident| ident.unraw().to_string()).unwrap_or_default()
}

fn unknown(meta: &ParseNestedMeta<'_>, known: &'static [&'static str]) -> Error {
    let name = name_of(meta);
    meta.error(format!("`entity` has no attribute `{name}` here; {}", names::hint(&name, known.iter().copied())))
}

fn set_once<T>(slot: &mut Option<T>, value: T, meta: &ParseNestedMeta<'_>) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error(format!("`{}` is there twice", name_of(meta)))),
    }
}

impl StructAttributes {
    pub(crate) fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut parsed = Self::default();
        for attribute in entity_attributes(attributes) {
            attribute.parse_nested_meta(|meta| parsed.parse_one(&meta))?;
        }
        Ok(parsed)
    }

    fn parse_one(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        match name_of(meta).as_str() {
            "table" => {
                let table: LitStr = meta.value()?.parse()?;
                names::check_table(&table)?;
                set_once(&mut self.table, table, meta)
            }
            "undeclared" => {
                self.undeclared = true;
                Ok(())
            }
            "history" => {
                let history = parse_history(&meta.value()?.parse()?)?;
                set_once(&mut self.history, history, meta)
            }
            "index" => self.parse_index(meta, false),
            "unique_index" => self.parse_index(meta, true),
            "crate" => {
                let path: LitStr = meta.value()?.parse()?;
                set_once(&mut self.krate, path.parse()?, meta)
            }
            _ => Err(unknown(meta, &STRUCT_ATTRIBUTES)),
        }
    }

    fn parse_index(&mut self, meta: &ParseNestedMeta<'_>, unique: bool) -> Result<()> {
        let (mut name, mut columns) = (None, None);
        meta.parse_nested_meta(|inner| match name_of(&inner).as_str() {
            "name" => {
                let literal: LitStr = inner.value()?.parse()?;
                names::check("an index name", &literal.value(), literal.span())?;
                set_once(&mut name, literal, &inner)
            }
            "columns" => {
                let content;
                parenthesized!(content in inner.input);
                let list = Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?;
                set_once(&mut columns, list.into_iter().collect::<Vec<_>>(), &inner)
            }
            _ => Err(unknown(&inner, &["name", "columns"])),
        })?;
        let shape = "an index is written `index(name = \"by_status\", columns(\"status\", \"priority\"))`";
        let (Some(name), Some(columns)) = (name, columns) else { return Err(meta.error(shape)) };
        if columns.is_empty() || columns.len() > 8 {
            return Err(Error::new(name.span(), format!("index `{}` needs 1 to 8 columns", name.value())));
        }
        self.indexes.push(IndexAttribute { name, columns, unique });
        Ok(())
    }
}

fn parse_history(literal: &Lit) -> Result<HistoryAttribute> {
    match literal {
        Lit::Int(count) => match count.base10_parse()? {
            0 => Err(Error::new(count.span(), "keep at least 1 version, or leave `history` out")),
            count => Ok(HistoryAttribute::Keep(count)),
        },
        Lit::Str(all) if all.value() == "all" => Ok(HistoryAttribute::All),
        other => Err(Error::new(other.span(), "`history` is a number of versions, or \"all\"")),
    }
}

impl FieldAttributes {
    pub(crate) fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut role = None;
        let mut parsed = Self { role: Role::Column, kind: None, column: None, unique: None, index: None, default: None };
        for attribute in entity_attributes(attributes) {
            attribute.parse_nested_meta(|meta| {
                let name = name_of(&meta);
                if let Some(named) = Role::of(&name) {
                    return match role.replace((named, meta.path.span())) {
                        None => Ok(()),
                        Some(_) => Err(meta.error("a field is one of `key`, `partition`, `version`, `skip`, `rest`")),
                    };
                }
                parsed.parse_one(&name, &meta)
            })?;
        }
        if let Some((role, span)) = role {
            parsed.role = role;
            parsed.check_role(span)?;
        }
        Ok(parsed)
    }

    fn parse_one(&mut self, name: &str, meta: &ParseNestedMeta<'_>) -> Result<()> {
        match name {
            "unique" => set_once(&mut self.unique, meta.path.span(), meta),
            "index" => set_once(&mut self.index, meta.path.span(), meta),
            "default" => {
                let value = meta.value()?.parse()?;
                set_once(&mut self.default, value, meta)
            }
            "column" => {
                let column: LitStr = meta.value()?.parse()?;
                names::check_column(&column.value(), column.span())?;
                set_once(&mut self.column, column, meta)
            }
            name if TYPES.contains(&name) => {
                let kind = meta.path.require_ident()?.clone();
                match self.kind.replace(kind) {
                    None => Ok(()),
                    Some(other) => Err(meta.error(format!("the column is `{other}` already: it has one type"))),
                }
            }
            _ => Err(unknown(meta, &FIELD_ATTRIBUTES)),
        }
    }

    /// What goes with a role that is not a plain column.
    fn check_role(&self, span: Span) -> Result<()> {
        let is_key = self.role.is_key();
        let stored = is_key || self.role == Role::Column;
        let message = if is_key && (self.kind.is_some() || self.default.is_some()) {
            "a key column takes its type from the field and has no default"
        } else if is_key && (self.unique.is_some() || self.index.is_some()) {
            "a key is indexed and unique by itself"
        } else if !stored && (self.kind.is_some() || self.default.is_some() || self.column.is_some()) {
            "this field is not a column: it has neither name, type nor default"
        } else if !stored && (self.unique.is_some() || self.index.is_some()) {
            "this field is not a column: it can't be indexed"
        } else {
            return Ok(());
        };
        Err(Error::new(span, message))
    }
}
