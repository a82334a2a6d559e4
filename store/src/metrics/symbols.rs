//! Texts of labels, each kept once and named by a number.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use windrose_proto::metric::labels::{BUCKET, METRIC_NAME};

/// Names a text of one [`Symbols`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Symbol(pub(super) u32);

impl Symbol {
    /// The empty text, which stands for an absent label.
    pub(super) const EMPTY: Self = Self(0);
    /// `__name__`
    pub(super) const METRIC_NAME: Self = Self(1);
    /// `le`
    pub(super) const BUCKET: Self = Self(2);
}

/// Texts by number and numbers by text. Texts stay until the whole is rebuilt.
#[derive(Debug)]
pub(super) struct Symbols {
    texts: Vec<Arc<str>>,
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    text_bytes: usize,
}

impl Default for Symbols {
    fn default() -> Self {
        let hasher = DefaultHashBuilder::default();
        let mut symbols = Self { texts: Vec::new(), numbers: HashTable::new(), hasher, text_bytes: 0 };
        for text in ["", METRIC_NAME, BUCKET] {
            symbols.intern(&Arc::from(text));
        }
        symbols
    }
}

impl Symbols {
    /// The number of a text, a new one when it is new.
    pub(super) fn intern(&mut self, text: &Arc<str>) -> Symbol {
        let hash = self.hasher.hash_one(&**text);
        let texts = &self.texts;
        if let Some(number) = self.numbers.find(hash, |number| *texts[*number as usize] == **text) {
            return Symbol(*number);
        }
        let number = u32::try_from(texts.len()).expect("the limit on series keeps texts far below 2^32");
        self.text_bytes += text.len() + 2 * size_of::<usize>();
        self.texts.push(Arc::clone(text));
        let (texts, hasher) = (&self.texts, &self.hasher);
        self.numbers.insert_unique(hash, number, |number| hasher.hash_one(&*texts[*number as usize]));
        Symbol(number)
    }

    /// The number of a text that is known.
    pub(super) fn find(&self, text: &str) -> Option<Symbol> {
        let hash = self.hasher.hash_one(text);
        self.numbers.find(hash, |number| *self.texts[*number as usize] == *text).map(|number| Symbol(*number))
    }

    /// The text behind a number.
    pub(super) fn text(&self, symbol: Symbol) -> &Arc<str> {
        &self.texts[symbol.0 as usize]
    }

    /// Memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.text_bytes + self.texts.capacity() * size_of::<Arc<str>>() + self.numbers.capacity() * 5
    }
}
