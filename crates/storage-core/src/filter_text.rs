//! placeholder
use crate::{Filter, Result};
impl Filter {
    /// x
    pub fn parse(text: &str) -> Result<Self> {
        let _ = text;
        Ok(Self::All)
    }
}
