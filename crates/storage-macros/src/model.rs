//! The entity as a whole, checked.

use std::collections::HashMap;

use proc_macro2::Span;
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Data, DeriveInput, Error, Fields, GenericArgument, Generics, Ident, LitStr, Path, PathArguments, Result, Type};

use crate::attributes::{FieldAttributes, HistoryAttribute, IndexAttribute, Role, StructAttributes};
use crate::names;

/// One field.
pub(crate) struct FieldModel {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) column: String,
    pub(crate) attributes: FieldAttributes,
}

/// A struct with its attributes, checked as far as the compiler's view of one item reaches.
pub(crate) struct EntityModel {
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) krate: Path,
    pub(crate) table: LitStr,
    pub(crate) undeclared: bool,
    pub(crate) history: Option<HistoryAttribute>,
    pub(crate) indexes: Vec<IndexAttribute>,
    pub(crate) fields: Vec<FieldModel>,
}

/// Collects errors, so that a person sees all of them at once.
#[derive(Default)]
struct Errors(Option<Error>);

impl Errors {
    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn catch<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    fn finish(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

impl EntityModel {
    pub(crate) fn new(input: &DeriveInput) -> Result<Self> {
        let fields = named_fields(input)?;
        let mut errors = Errors::default();
        let attributes = errors.catch(StructAttributes::parse(&input.attrs));
        let fields: Vec<_> = fields.iter().filter_map(|field| errors.catch(FieldModel::new(field))).collect();
        let (Some(attributes), None) = (attributes, &errors.0) else {
            return Err(errors.0.unwrap_or_else(|| Error::new(input.span(), "can't read the attributes")));
        };
        check_roles(&input.ident, &fields, &mut errors);
        check_columns(&fields, &mut errors);
        let mut indexes = attributes.indexes;
        for index in &indexes {
            check_index(index, &fields, attributes.undeclared, &mut errors);
        }
        indexes.extend(fields.iter().filter_map(FieldModel::own_index));
        check_index_names(&indexes, &mut errors);
        if attributes.table.is_none() {
            errors.add(Error::new(input.ident.span(), "name the table: `#[entity(table = \"…\")]`"));
        }
        errors.finish()?;
        let default_crate = || syn::parse_quote!(::storage_core);
        Ok(Self {
            ident: input.ident.clone(),
            generics: input.generics.clone(),
            krate: attributes.krate.unwrap_or_else(default_crate),
            table: attributes.table.unwrap_or_else(|| LitStr::new("", input.ident.span())),
            undeclared: attributes.undeclared || fields.iter().any(|f| f.attributes.role == Role::Rest),
            history: attributes.history,
            indexes,
            fields,
        })
    }

    /// The fields of that role.
    pub(crate) fn of_role(&self, role: Role) -> impl Iterator<Item = &FieldModel> {
        self.fields.iter().filter(move |field| field.attributes.role == role)
    }
}

impl FieldModel {
    fn new(field: &syn::Field) -> Result<Self> {
        let Some(ident) = field.ident.clone() else { return Err(Error::new(field.span(), "a field needs a name")) };
        let attributes = FieldAttributes::parse(&field.attrs)?;
        let column = attributes.column.as_ref().map_or_else(|| ident.unraw().to_string(), LitStr::value);
        if attributes.column.is_none() && (attributes.role.is_key() || attributes.role == Role::Column) {
            names::check_column(&column, ident.span())?;
        }
        if attributes.role.is_key() && option_of(&field.ty).is_some() {
            return Err(Error::new(field.ty.span(), "a key can't be missing: leave the `Option` away"));
        }
        if attributes.role == Role::Version && is_certainly_no_version(&field.ty) {
            return Err(Error::new(field.ty.span(), "the version is a `storage_core::Version`"));
        }
        Ok(Self { ident, ty: field.ty.clone(), column, attributes })
    }

    /// True where the field's type is an `Option`, as far as it can be seen.
    pub(crate) fn is_option(&self) -> bool {
        option_of(&self.ty).is_some()
    }

    fn own_index(&self) -> Option<IndexAttribute> {
        let span = self.attributes.index?;
        let name = LitStr::new(&format!("by_{}", self.column), span);
        Some(IndexAttribute { name, columns: vec![LitStr::new(&self.column, span)], unique: false })
    }

    fn is_stored(&self) -> bool {
        self.attributes.role.is_key() || self.attributes.role == Role::Column
    }

    fn column_span(&self) -> Span {
        self.attributes.column.as_ref().map_or_else(|| self.ident.span(), LitStr::span)
    }
}

fn named_fields(input: &DeriveInput) -> Result<&syn::punctuated::Punctuated<syn::Field, syn::Token![,]>> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Ok(&fields.named),
            _ => Err(Error::new(input.ident.span(), "an entity is a struct with named fields: each is a column")),
        },
        _ => Err(Error::new(input.ident.span(), "an entity is a struct: an enum or union has no columns")),
    }
}

/// The `T` of an `Option<T>`, told by its name as other derives do.
fn option_of(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Option")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| if let GenericArgument::Type(ty) = argument { Some(ty) } else { None })
}

/// Spares the likely mistakes a type error within generated code.
fn is_certainly_no_version(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return true };
    let last = path.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
    matches!(last.as_str(), "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" | "String" | "Option")
}

fn check_roles(entity: &Ident, fields: &[FieldModel], errors: &mut Errors) {
    for (role, name) in [(Role::Key, "key"), (Role::Partition, "partition"), (Role::Version, "version"), (Role::Rest, "rest")] {
        let mut marked = fields.iter().filter(|field| field.attributes.role == role);
        match (marked.next(), marked.next()) {
            (None, _) if role == Role::Key => {
                errors.add(Error::new(entity.span(), "mark the field that is the key: `#[entity(key)]`"));
            }
            (Some(first), Some(second)) => {
                let hint = if role == Role::Key { "; a key of two parts is a `partition` and a `key`" } else { "" };
                let message = format!("`{}` is the {name} already: one field can be{hint}", first.ident);
                errors.add(Error::new(second.ident.span(), message));
            }
            _ => {}
        }
    }
}

fn check_columns(fields: &[FieldModel], errors: &mut Errors) {
    let mut seen = HashMap::new();
    for field in fields.iter().filter(|field| field.is_stored()) {
        if let Some(first) = seen.insert(field.column.to_ascii_lowercase(), &field.ident) {
            let message = format!("column `{}` is that of field `{first}` already (letter case does not count)", field.column);
            errors.add(Error::new(field.column_span(), message));
        }
        let kind = field.attributes.kind.as_ref().map(ToString::to_string);
        let indexed = field.attributes.unique.or(field.attributes.index);
        if let (Some("json"), Some(span)) = (kind.as_deref(), indexed) {
            errors.add(Error::new(span, "a column of JSON can be neither unique nor indexed"));
        }
    }
}

fn check_index(index: &IndexAttribute, fields: &[FieldModel], undeclared: bool, errors: &mut Errors) {
    let known: Vec<&str> = fields.iter().filter(|field| field.is_stored()).map(|field| field.column.as_str()).collect();
    for (position, column) in index.columns.iter().enumerate() {
        let name = column.value();
        if !known.contains(&name.as_str()) {
            let but = if undeclared { " (an index needs declared columns)" } else { "" };
            let message = format!("there is no column `{name}`{but}; {}", names::hint(&name, known.iter().copied()));
            errors.add(Error::new(column.span(), message));
        }
        if index.columns[..position].iter().any(|before| before.value() == name) {
            errors.add(Error::new(column.span(), format!("column `{name}` is in this index already")));
        }
    }
}

fn check_index_names(indexes: &[IndexAttribute], errors: &mut Errors) {
    for (position, index) in indexes.iter().enumerate() {
        let name = index.name.value();
        if indexes[..position].iter().any(|before| before.name.value().eq_ignore_ascii_case(&name)) {
            errors.add(Error::new(index.name.span(), format!("there is an index `{name}` already")));
        }
    }
}
