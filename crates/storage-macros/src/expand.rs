//! The implementation that is written for an entity.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::Ident;
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;

use crate::attributes::{HistoryAttribute, Role};
use crate::model::{EntityModel, FieldModel};

pub(crate) fn expand(model: &EntityModel) -> TokenStream {
    let (krate, ident) = (&model.krate, &model.ident);
    let (impl_generics, type_generics, where_clause) = model.generics.split_for_impl();
    let (schema, key, version) = (schema(model), key(model), version(model));
    let (to_fields, from_record) = (to_fields(model), from_record(model));
    quote! {
        #[automatically_derived]
        #[allow(unused_qualifications)]
        impl #impl_generics #krate::Entity for #ident #type_generics #where_clause {
            #schema
            #key
            #version
            #to_fields
            #from_record
        }
    }
}

fn schema(model: &EntityModel) -> TokenStream {
    let (krate, table) = (&model.krate, &model.table);
    let keys = model.fields.iter().filter(|field| field.attributes.role.is_key()).map(|field| {
        let (ty, column) = (&field.ty, &field.column);
        let method = if field.attributes.role == Role::Key { quote!(key_of) } else { quote!(partition) };
        quote_spanned! {ty.span()=> let builder = builder.#method(#column, <#ty as #krate::KeyValue>::KIND); }
    });
    let columns = model.of_role(Role::Column).map(|field| column(model, field));
    let indexes = model.indexes.iter().map(|index| {
        let (name, columns) = (&index.name, &index.columns);
        let method = if index.unique { quote!(unique_index) } else { quote!(index) };
        quote! { let builder = builder.#method(#name, [#(#columns),*]); }
    });
    let undeclared = model.undeclared.then(|| quote! { let builder = builder.keep_undeclared(); });
    let history = model.history.as_ref().map(|history| match history {
        HistoryAttribute::Keep(count) => quote! { let builder = builder.history(#krate::History::Keep(#count)); },
        HistoryAttribute::All => quote! { let builder = builder.history(#krate::History::KeepAll); },
    });
    quote! {
        fn schema() -> #krate::Result<#krate::TableSchema> {
            let builder = #krate::TableSchema::builder(#table);
            #(#keys)*
            #(#columns)*
            #(#indexes)*
            #undeclared
            #history
            builder.build()
        }
    }
}

fn column(model: &EntityModel, field: &FieldModel) -> TokenStream {
    let (krate, ty, column) = (&model.krate, &field.ty, &field.column);
    let kind = field.attributes.kind.as_ref().map(ToString::to_string);
    let (kind, required) = match kind.as_deref() {
        None => (
            quote_spanned!(ty.span()=> <#ty as #krate::ColumnValue>::KIND),
            quote_spanned!(ty.span()=> <#ty as #krate::ColumnValue>::REQUIRED),
        ),
        Some("bytes") => (quote!(#krate::ColumnType::Bytes), quote_spanned!(ty.span()=> <#ty as #krate::BytesValue>::REQUIRED)),
        Some(name) => {
            let required = !field.is_option();
            let variant = match name {
                "text" => quote!(Text),
                "integer" => quote!(Integer),
                "real" => quote!(Real),
                "boolean" => quote!(Boolean),
                "timestamp" => quote!(Timestamp),
                _ => quote!(Json),
            };
            (quote!(#krate::ColumnType::#variant), quote!(#required))
        }
    };
    let unique = field.attributes.unique.map(|_| quote! { let builder = builder.unique(); });
    let default = field.attributes.default.as_ref().map(|value| {
        quote_spanned! {value.span()=> let builder = builder.default(#value); }
    });
    quote! {
        let builder = builder.column(#column, #kind);
        let builder = if #required { builder.required() } else { builder };
        #unique
        #default
    }
}

fn key(model: &EntityModel) -> TokenStream {
    let krate = &model.krate;
    let part = |field: &FieldModel| {
        let (ident, ty) = (&field.ident, &field.ty);
        quote_spanned!(ty.span()=> <#ty as #krate::KeyValue>::to_part(&self.#ident))
    };
    let id = model.of_role(Role::Key).map(part);
    let partition = match model.of_role(Role::Partition).next().map(part) {
        Some(part) => quote!(::core::option::Option::Some(#part)),
        None => quote!(::core::option::Option::None),
    };
    quote! {
        fn key(&self) -> #krate::Key {
            #krate::Key { partition: #partition, id: #(#id)* }
        }
    }
}

fn version(model: &EntityModel) -> Option<TokenStream> {
    let krate = &model.krate;
    let field = model.of_role(Role::Version).next()?;
    let (ident, span) = (&field.ident, field.ty.span());
    let (read, write) = (quote_spanned!(span=> self.#ident), quote_spanned!(span=> self.#ident = version));
    Some(quote! {
        fn version(&self) -> ::core::option::Option<#krate::Version> {
            let version: #krate::Version = #read;
            ::core::option::Option::Some(version)
        }

        fn set_version(&mut self, version: #krate::Version) {
            #write;
        }
    })
}

/// A name for a field's value that no other name of the generated code can be.
fn local(field: &Ident) -> Ident {
    format_ident!("__field_{}", field.unraw())
}

fn is_bytes(field: &FieldModel) -> bool {
    field.attributes.kind.as_ref().is_some_and(|kind| kind == "bytes")
}

fn to_fields(model: &EntityModel) -> TokenStream {
    let krate = &model.krate;
    let columns: Vec<_> = model.of_role(Role::Column).collect();
    let names: Vec<_> = model.fields.iter().filter(|f| f.attributes.role.is_key() || f.attributes.role == Role::Column).collect();
    let names = names.iter().map(|field| &field.column);
    let start = match model.of_role(Role::Rest).next() {
        Some(FieldModel { ident, .. }) => quote! {
            let mut fields: #krate::Fields = self.#ident.clone();
            // A declared column is the struct's to say, also where it has none.
            for column in [#(#names),*] {
                fields.remove(column);
            }
        },
        None => quote! { let mut fields = #krate::Fields::new(); },
    };
    let puts = columns.iter().map(|field| {
        let (ident, column, ty) = (&field.ident, &field.column, &field.ty);
        if is_bytes(field) {
            quote_spanned!(ty.span()=> #krate::entity::put_bytes(&mut fields, #column, &self.#ident);)
        } else {
            quote_spanned!(ty.span()=> #krate::entity::put_field(&mut fields, #column, &self.#ident)?;)
        }
    });
    quote! {
        fn to_fields(&self) -> #krate::Result<#krate::Fields> {
            #start
            #(#puts)*
            ::core::result::Result::Ok(fields)
        }
    }
}

fn from_record(model: &EntityModel) -> TokenStream {
    let (krate, table) = (&model.krate, &model.table);
    // The order of evaluation is that of the struct's fields, so `rest` is taken behind the columns.
    let columns = model.fields.iter().filter(|field| field.attributes.role == Role::Column).map(|field| {
        let (ident, column, ty) = (&field.ident, &field.column, &field.ty);
        let take = if is_bytes(field) { quote!(take_bytes) } else { quote!(take_field) };
        let local = local(ident);
        quote_spanned!(ty.span()=> let #local: #ty = #krate::entity::#take(&mut __record.fields, #table, &__record.key, #column)?;)
    });
    let others = model.fields.iter().filter(|field| field.attributes.role != Role::Column).map(|field| {
        let (ident, column, ty) = (&field.ident, &field.column, &field.ty);
        let value = match field.attributes.role {
            Role::Key => quote!(#krate::entity::take_part(::core::option::Option::Some(&__record.key.id), #table, #column)?),
            Role::Partition => quote!(#krate::entity::take_part(__record.key.partition.as_ref(), #table, #column)?),
            Role::Version => quote!(__record.version),
            Role::Rest => quote!(::core::mem::take(&mut __record.fields)),
            Role::Skip | Role::Column => quote!(::core::default::Default::default()),
        };
        let local = local(ident);
        quote_spanned!(ty.span()=> let #local: #ty = #value;)
    });
    let idents = model.fields.iter().map(|field| &field.ident);
    let locals = model.fields.iter().map(|field| local(&field.ident));
    quote! {
        fn from_record(record: #krate::Record) -> #krate::Result<Self> {
            let mut __record = record;
            #(#columns)*
            #(#others)*
            ::core::result::Result::Ok(Self { #(#idents: #locals),* })
        }
    }
}
