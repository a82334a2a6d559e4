//! Where the attributes of a span are kept, and how they come back in order and with their types.
//!
//! # The shape
//! One line per attribute: a letter for the type, a sign for the place, then the key with `\` and
//! line feeds escaped.
//!
//! | type | value | written as |
//! |---|---|---|
//! | `s` | string | itself |
//! | `i` `d` `b` | integer, double, boolean | as printed |
//! | `y` | bytes | base64 |
//! | `j` | array or map | OTLP/JSON |
//! | `e` | empty | null |
//!
//! | place | where |
//! |---|---|
//! | `=` | said by public columns: [`Lift`] |
//! | `~` | said by public columns in the other spelling that the key has |
//! | `:` | column `attr_<key>`, every sign but letters and digits replaced by `_` |
//! | `.` | the next entry of the map `attributes` |
//!
//! Keys inside the map are for readers of the file: a repeated key gets `#2` so that every tool
//! accepts the map. The shape has the true key.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayBuilder, AsArray, MapArray, MapBuilder, MapFieldNames, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field};
use hashbrown::{HashMap, HashSet};
use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, KeyValue, Value};

use super::super::TableError;
use super::super::columns::{Columns, Reader, text_at};
use super::super::otlp_json::{self, base64};
use super::public::{Lift, Public};

/// Keys with a column of their own: what Envoy, Istio and applications after the HTTP and RPC
/// conventions send on more than one span in a hundred. Sorted. Keys are only ever added.
const HOT_KEYS: [&str; 46] = [
    "canceled",
    "client.address",
    "component",
    "db.operation.name",
    "db.system",
    "db.system.name",
    "downstream_cluster",
    "error",
    "error.reason",
    "error.type",
    "grpc.authority",
    "grpc.content_type",
    "grpc.message",
    "grpc.path",
    "grpc.status_code",
    "grpc.timeout",
    "http.protocol",
    "http.status_code",
    "http.target",
    "http.url",
    "istio.canonical_revision",
    "istio.canonical_service",
    "istio.cluster_id",
    "istio.mesh_id",
    "istio.namespace",
    "net.peer.name",
    "network.peer.address",
    "network.protocol.version",
    "node_id",
    "peer.address",
    "request_size",
    "response_code_details",
    "response_size",
    "retry.count",
    "route_name",
    "rpc.method",
    "rpc.service",
    "rpc.system",
    "server.address",
    "server.port",
    "upstream_cluster.name",
    "url.full",
    "url.scheme",
    "user_agent",
    "user_agent.original",
    "zone",
];

static HOT_COLUMNS: LazyLock<Vec<String>> = LazyLock::new(|| HOT_KEYS.iter().map(|key| column_name(key)).collect());

fn column_name(key: &str) -> String {
    let plain = key.chars().map(|sign| if sign.is_ascii_alphanumeric() { sign } else { '_' });
    "attr_".chars().chain(plain).collect()
}

const MAP_COLUMN: &str = "attributes";
const SHAPE_COLUMN: &str = "attribute_shape";

/// Shapes kept per file; attributes that are all different must not fill the memory.
const SHAPES_MAX: usize = 1024;

/// What is known of a key.
#[derive(Clone, Copy, Debug)]
struct KeyPlan {
    /// Of the key among those met.
    number: u32,
    lift: Option<Lift>,
    other_lift: Option<Lift>,
    hot: Option<u16>,
}

impl KeyPlan {
    fn of(key: &str, number: u32) -> Self {
        Self {
            number,
            lift: Lift::of(key),
            other_lift: Lift::other_of(key),
            hot: HOT_KEYS.binary_search(&key).ok().map(|place| place as u16),
        }
    }
}

/// What spans of one kind have in common: their keys, and the shape of their attributes.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    keys: HashMap<Text, KeyPlan>,
    texts: HashMap<Signature, String>,
}

/// Key, type and place of each attribute of a row.
type Signature = Vec<(u32, u8, u8)>;

/// Builds the columns of attributes row by row.
pub(super) struct AttributeWriter<'s> {
    rows: usize,
    hot: Vec<StringBuilder>,
    map: MapBuilder<StringBuilder, StringBuilder>,
    shape: StringBuilder,
    /// Plans by position in the span: the next span mostly has the same keys in the same order.
    plans: Vec<(Text, KeyPlan)>,
    /// Of the row.
    signature: Signature,
    shapes: &'s mut Shapes,
    map_keys: MapKeys,
    value: String,
    rendered: String,
}

impl<'s> AttributeWriter<'s> {
    pub(super) fn new(shapes: &'s mut Shapes) -> Self {
        let names = MapFieldNames { entry: "key_value".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
        Self {
            rows: 0,
            hot: HOT_KEYS.iter().map(|_| StringBuilder::with_capacity(0, 0)).collect(),
            map: MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
                .with_values_field(Field::new("value", DataType::Utf8, true)),
            shape: StringBuilder::new(),
            plans: Vec::new(),
            signature: Vec::new(),
            shapes,
            map_keys: MapKeys::default(),
            value: String::new(),
            rendered: String::new(),
        }
    }

    /// Adds the attributes of the next row.
    pub(super) fn append(&mut self, attributes: &Attributes, public: &Public<'_>) {
        self.map_keys.seen.clear();
        self.signature.clear();
        for (place, KeyValue { key, value }) in attributes.iter().enumerate() {
            let plan = self.plan(place, key);
            self.value.clear();
            let kind = write_value(value, &mut self.value);
            let place = self.choose_place(plan, kind, public);
            self.signature.push((plan.number, kind as u8, place.sign() as u8));
            match place {
                Place::Public | Place::PublicOther => {}
                Place::Column(column) => {
                    let builder = &mut self.hot[usize::from(column)];
                    fill_with_nulls(builder, self.rows);
                    builder.append_value(&self.value);
                }
                Place::Map => {
                    self.map_keys.append(self.map.keys(), key);
                    self.map.values().append_option((kind != 'e').then_some(&self.value));
                }
            }
        }
        self.map.append(true).expect("keys and values were appended in pairs");
        self.append_shape(attributes);
        self.rows += 1;
    }

    fn append_shape(&mut self, attributes: &Attributes) {
        if let Some(shape) = self.shapes.texts.get(&self.signature) {
            self.shape.append_value(shape);
            return;
        }
        let mut shape = String::new();
        for (KeyValue { key, .. }, (_, kind, place)) in attributes.iter().zip(&self.signature) {
            push_line(&mut shape, char::from(*kind), char::from(*place), key);
        }
        self.shape.append_value(&shape);
        if self.shapes.texts.len() < SHAPES_MAX {
            self.shapes.texts.insert(self.signature.clone(), shape);
        }
    }

    fn plan(&mut self, place: usize, key: &Text) -> KeyPlan {
        if let Some((_, plan)) = self.plans.get(place).filter(|(known, _)| known == key) {
            return *plan;
        }
        let next = self.shapes.keys.len() as u32;
        let plan = *self.shapes.keys.entry(key.clone()).or_insert_with(|| KeyPlan::of(key, next));
        match self.plans.get_mut(place) {
            Some(slot) => *slot = (key.clone(), plan),
            None => self.plans.push((key.clone(), plan)),
        }
        plan
    }

    fn choose_place(&mut self, plan: KeyPlan, kind: char, public: &Public<'_>) -> Place {
        if !matches!(kind, 's' | 'i' | 'd' | 'b') {
            return Place::Map;
        }
        for (lift, place) in [(plan.lift, Place::Public), (plan.other_lift, Place::PublicOther)] {
            let Some(lift) = lift else { break };
            self.rendered.clear();
            if lift.render(public, &mut self.rendered) && self.rendered == self.value {
                return place;
            }
        }
        match plan.hot {
            // A repeated key finds its column taken.
            Some(column) if self.hot[usize::from(column)].len() <= self.rows => Place::Column(column),
            Some(_) | None => Place::Map,
        }
    }

    /// Adds the columns.
    pub(super) fn finish(mut self, columns: &mut Columns) {
        columns.text_array(SHAPE_COLUMN, false, self.shape.finish());
        for (name, mut builder) in HOT_COLUMNS.iter().zip(self.hot) {
            fill_with_nulls(&mut builder, self.rows);
            columns.text_array(name, true, builder.finish());
        }
        columns.push(MAP_COLUMN, false, Arc::new(self.map.finish()));
    }
}

fn fill_with_nulls(builder: &mut StringBuilder, rows: usize) {
    while builder.len() < rows {
        builder.append_null();
    }
}

/// Keeps the keys of one row's map distinct.
#[derive(Default)]
struct MapKeys {
    seen: HashSet<Text>,
}

impl MapKeys {
    fn append(&mut self, keys: &mut StringBuilder, key: &Text) {
        let mut distinct = key.clone();
        let mut number = 2_u32;
        while !self.seen.insert(distinct.clone()) {
            distinct = Text::from(format!("{key}#{number}"));
            number += 1;
        }
        keys.append_value(&*distinct);
    }
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Public,
    PublicOther,
    Column(u16),
    Map,
}

impl Place {
    const fn sign(self) -> char {
        match self {
            Self::Public => '=',
            Self::PublicOther => '~',
            Self::Column(_) => ':',
            Self::Map => '.',
        }
    }
}

/// Writes the value as text and returns the letter of its type.
fn write_value(value: &Value, out: &mut String) -> char {
    use std::fmt::Write as _;
    let printed = match value {
        Value::Empty => return 'e',
        Value::Str(text) => {
            out.push_str(text);
            return 's';
        }
        Value::Bytes(bytes) => {
            out.push_str(&base64::encode(bytes));
            return 'y';
        }
        Value::Array(_) | Value::Map(_) => {
            out.push_str(&otlp_json::value_to_text(value));
            return 'j';
        }
        Value::Bool(flag) => ('b', write!(out, "{flag}")),
        Value::Int(number) => ('i', write!(out, "{number}")),
        Value::Double(number) => ('d', write!(out, "{number}")),
    };
    debug_assert!(printed.1.is_ok(), "writing to a string cannot fail");
    printed.0
}

fn read_value(kind: char, text: Option<&str>) -> Option<Value> {
    if kind == 'e' {
        return Some(Value::Empty);
    }
    let text = text?;
    match kind {
        's' => Some(Value::Str(Text::from(text))),
        'i' => text.parse().ok().map(Value::Int),
        'd' => text.parse().ok().map(Value::Double),
        'b' => text.parse().ok().map(Value::Bool),
        'y' => base64::decode(text).map(Value::Bytes),
        'j' => otlp_json::value_from_text(text).ok(),
        _ => None,
    }
}

fn push_line(out: &mut String, kind: char, place: char, key: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push(kind);
    out.push(place);
    if key.contains(['\\', '\n']) {
        out.push_str(&key.replace('\\', "\\\\").replace('\n', "\\n"));
    } else {
        out.push_str(key);
    }
}

fn unescape(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut signs = key.chars();
    while let Some(sign) = signs.next() {
        match (sign, sign == '\\') {
            (_, true) => out.push(if signs.next() == Some('n') { '\n' } else { '\\' }),
            (plain, false) => out.push(plain),
        }
    }
    out
}

/// One line of a shape, understood.
#[derive(Clone, Debug)]
struct Line {
    kind: char,
    place: LinePlace,
    key: Text,
}

#[derive(Clone, Copy, Debug)]
enum LinePlace {
    Public(Lift),
    Column(u16),
    Map,
}

fn parse_shape(shape: &str) -> Option<Vec<Line>> {
    if shape.is_empty() {
        return Some(Vec::new());
    }
    shape.split('\n').map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let mut signs = line.chars();
    let (kind, place) = (signs.next()?, signs.next()?);
    let key = unescape(signs.as_str());
    let place = match place {
        '=' => LinePlace::Public(Lift::of(&key)?),
        '~' => LinePlace::Public(Lift::other_of(&key)?),
        ':' => LinePlace::Column(HOT_KEYS.binary_search(&key.as_str()).ok()? as u16),
        '.' => LinePlace::Map,
        _ => return None,
    };
    Some(Line { kind, place, key: Text::from(key) })
}

/// Reads attributes row by row.
pub(super) struct AttributeReader<'a> {
    hot: Vec<&'a StringArray>,
    map: &'a MapArray,
    map_values: &'a StringArray,
    shape: &'a StringArray,
    shapes: HashMap<&'a str, Arc<[Line]>>,
}

impl<'a> AttributeReader<'a> {
    pub(super) fn new(reader: Reader<'a>) -> Result<Self, TableError> {
        let map = reader.column(MAP_COLUMN)?.as_map_opt().ok_or_else(|| inconsistent("not a map"))?;
        Ok(Self {
            hot: HOT_COLUMNS.iter().map(|name| reader.text(name)).collect::<Result<_, _>>()?,
            map,
            map_values: map.values().as_string_opt().ok_or_else(|| inconsistent("values are not text"))?,
            shape: reader.text(SHAPE_COLUMN)?,
            shapes: HashMap::new(),
        })
    }

    /// The attributes of `row`, whose public columns are `public`.
    pub(super) fn get(&mut self, row: usize, public: &Public<'_>) -> Result<Attributes, TableError> {
        let shape = self.shape(row)?;
        let offsets = self.map.value_offsets();
        let mut entries = offsets[row] as usize..offsets[row + 1] as usize;
        let mut rendered = String::new();
        let mut attributes = Vec::with_capacity(shape.len());
        for line in shape.iter() {
            let text = match line.place {
                LinePlace::Public(lift) => {
                    rendered.clear();
                    lift.render(public, &mut rendered).then_some(rendered.as_str())
                }
                LinePlace::Column(column) => text_at(self.hot[usize::from(column)], row),
                LinePlace::Map => {
                    let entry = entries.next().ok_or_else(|| inconsistent("fewer entries than the shape names"))?;
                    text_at(self.map_values, entry)
                }
            };
            let value = read_value(line.kind, text).ok_or_else(|| inconsistent("value does not match its type"))?;
            attributes.push(KeyValue { key: line.key.clone(), value });
        }
        Ok(Attributes(attributes))
    }

    fn shape(&mut self, row: usize) -> Result<Arc<[Line]>, TableError> {
        let text = self.shape.value(row);
        if let Some(shape) = self.shapes.get(text) {
            return Ok(Arc::clone(shape));
        }
        let shape: Arc<[Line]> = parse_shape(text).ok_or_else(|| inconsistent("unreadable shape"))?.into();
        self.shapes.insert(text, Arc::clone(&shape));
        Ok(shape)
    }
}

fn inconsistent(why: &'static str) -> TableError {
    TableError::Inconsistent { column: MAP_COLUMN.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::HOT_KEYS;

    #[test]
    fn hot_keys_are_sorted_and_name_distinct_columns() {
        assert!(HOT_KEYS.is_sorted());
        let names: std::collections::BTreeSet<String> = HOT_KEYS.iter().map(|key| super::column_name(key)).collect();
        assert_eq!(names.len(), HOT_KEYS.len());
    }
}
