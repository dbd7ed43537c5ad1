//! The builder of the columns that have most values: as arrow's, but that a value costs no call.

use arrow::array::{Float64Array, NullBufferBuilder};

/// Doubles, and which rows have one.
pub struct Doubles {
    values: Vec<f64>,
    valid: NullBufferBuilder,
}

impl Default for Doubles {
    fn default() -> Self {
        Doubles { values: vec![], valid: NullBufferBuilder::new(0) }
    }
}

impl Doubles {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    #[inline(always)]
    pub fn append_value(&mut self, value: f64) {
        self.valid.append_non_null();
        self.values.push(value);
    }

    pub fn append_null(&mut self) {
        self.valid.append_null();
        self.values.push(0.0);
    }

    /// The rows since the last call.
    pub fn finish(&mut self) -> Float64Array {
        Float64Array::new(std::mem::take(&mut self.values).into(), self.valid.finish())
    }
}
