//! Reading from the first copy that has the blob and can be reached.

use storage_core::{BlobMeta, BlobPath, BlobRead, Error, ErrorKind, GetOptions, Result};

use super::{Core, Require, is_elsewhere, of_copy, owner};

impl Core {
    pub(super) async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        let Some(mark) = &options.if_match else {
            let mut failed = None;
            for (index, copy) in self.copies.iter().enumerate() {
                match copy.get(path, options).await {
                    Ok(mut read) => {
                        read.meta = of_copy(index, read.meta);
                        return Ok(read);
                    }
                    Err(error) => failed = self.go_on(failed, error)?,
                }
            }
            return Err(failed.unwrap_or_else(no_copies));
        };
        // Only the copy that gave the mark can compare it.
        let (index, mark) = owner(mark);
        let Some(copy) = self.copies.get(index) else {
            return Err(Error::conflict("the mark is of a copy that the mirror does not have"));
        };
        let options = GetOptions { if_match: Some(mark), range: options.range.clone() };
        let mut read = copy.get(path, &options).await?;
        read.meta = of_copy(index, read.meta);
        Ok(read)
    }

    pub(super) async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        let mut failed = None;
        for (index, copy) in self.copies.iter().enumerate() {
            match copy.head(path).await {
                Ok(meta) => return Ok(of_copy(index, meta)),
                Err(error) => failed = self.go_on(failed, error)?,
            }
        }
        Err(failed.unwrap_or_else(no_copies))
    }

    /// What to report if no further copy has an answer either; an error that is none of one copy alone is reported at once. Where no copy has the blob, but one
    /// could not be asked, that is its error: nobody knows.
    fn go_on(&self, failed: Option<Error>, error: Error) -> Result<Option<Error>> {
        if is_elsewhere(&error) { Ok(Some(self.worse(failed, error))) } else { Err(error) }
    }

    /// Which of two failures to report. The primary's is the first; where it alone is required, its word is the last.
    fn worse(&self, first: Option<Error>, then: Error) -> Error {
        match first {
            Some(first) if self.require == Require::Primary || first.kind() != ErrorKind::NotFound => first,
            _ => then,
        }
    }
}

fn no_copies() -> Error {
    Error::internal("a mirror without copies")
}
