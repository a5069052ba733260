//! Between the words of object_store and ours.

use object_store::path::Path;
use object_store::{Attribute, Attributes, Error as StoreError, GetRange, ObjectMeta, Result};
use storage_core::{BlobAttributes, BlobMeta, BlobPath, ByteRange, ETag, Error, ErrorKind, PutMode, PutOptions};

use super::STORE;

/// An error of ours as one of object_store.
pub(super) fn error(error: Error, at: &Path) -> StoreError {
    let path = at.to_string();
    let kind = error.kind();
    let source = Box::new(error);
    match kind {
        ErrorKind::NotFound => StoreError::NotFound { path, source },
        ErrorKind::AlreadyExists => StoreError::AlreadyExists { path, source },
        ErrorKind::Conflict => StoreError::Precondition { path, source },
        ErrorKind::Unauthorized => StoreError::PermissionDenied { path, source },
        ErrorKind::Unsupported => not_implemented(source.message()),
        _ => StoreError::Generic { store: STORE, source },
    }
}

pub(super) fn not_implemented(what: &str) -> StoreError {
    StoreError::NotImplemented { operation: what.to_owned(), implementer: STORE.to_owned() }
}

pub(super) fn path_from(path: &Path) -> Result<BlobPath> {
    BlobPath::new(path.as_ref()).map_err(|e| error(e, path))
}

pub(super) fn object_meta(meta: BlobMeta) -> Result<ObjectMeta> {
    Ok(ObjectMeta {
        location: Path::parse(meta.path.as_str())?,
        last_modified: meta.modified_at,
        size: meta.size,
        e_tag: meta.etag.map(|etag| etag.0),
        version: None,
    })
}

pub(super) fn mode_from(mode: object_store::PutMode) -> Result<PutMode> {
    Ok(match mode {
        object_store::PutMode::Overwrite => PutMode::Overwrite,
        object_store::PutMode::Create => PutMode::Create,
        object_store::PutMode::Update(version) => PutMode::Update(ETag(
            version
                .e_tag
                .ok_or_else(|| StoreError::Generic { store: STORE, source: "an update needs the ETag of the object".into() })?,
        )),
    })
}

pub(super) fn options_from(mode: PutMode, attributes: Attributes) -> Result<PutOptions> {
    Ok(PutOptions { mode, attributes: attributes_from(attributes)? })
}

pub(super) fn attributes_from(attributes: Attributes) -> Result<BlobAttributes> {
    let mut kept = BlobAttributes::default();
    for (name, value) in &attributes {
        let value = value.as_ref().to_owned();
        match name {
            Attribute::ContentType => kept.content_type = Some(value),
            Attribute::CacheControl => kept.cache_control = Some(value),
            Attribute::ContentDisposition => kept.content_disposition = Some(value),
            Attribute::ContentEncoding => kept.content_encoding = Some(value),
            Attribute::Metadata(name) => drop(kept.metadata.insert(name.to_string(), value)),
            other => return Err(not_implemented(&format!("the attribute {other:?}"))),
        }
    }
    Ok(kept)
}

pub(super) fn attributes_to(attributes: &BlobAttributes) -> Attributes {
    let named = [
        (Attribute::ContentType, &attributes.content_type),
        (Attribute::CacheControl, &attributes.cache_control),
        (Attribute::ContentDisposition, &attributes.content_disposition),
        (Attribute::ContentEncoding, &attributes.content_encoding),
    ];
    let named = named.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    let metadata = attributes.metadata.iter().map(|(name, value)| (Attribute::Metadata(name.clone().into()), value.clone()));
    named.chain(metadata).collect()
}

/// A range; one without bytes is an error for object_store.
pub(super) fn range_from(range: &GetRange) -> Result<ByteRange> {
    match range {
        GetRange::Bounded(range) if range.start >= range.end => {
            let text = format!("the range {}..{} has no bytes", range.start, range.end);
            Err(StoreError::Generic { store: STORE, source: text.into() })
        }
        GetRange::Bounded(range) => Ok(ByteRange::Bounded(range.clone())),
        GetRange::Offset(from) => Ok(ByteRange::From(*from)),
        GetRange::Suffix(count) => Ok(ByteRange::Suffix(*count)),
    }
}
