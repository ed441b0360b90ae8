//! Types between JSON Schema and TypeScript, kept simple while they are put together.

/// A type. Indices are into the list of named types that goes with it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Type {
    Unknown,
    Never,
    Null,
    Boolean,
    Number,
    String,
    /// TypeScript source of a literal type.
    Literal(String),
    Array(Box<Type>),
    Tuple(Tuple),
    Object(Object),
    Union(Vec<Type>),
    Intersection(Vec<Type>),
    Named(usize),
    /// Something that is not spelt out: the wider type, and why.
    Cut(Box<Type>, String),
    /// In a union: so many more members, and a type that they all have.
    More(Box<Type>, usize),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tuple {
    pub(crate) items: Vec<Type>,
    /// Items from this index on may be missing.
    pub(crate) n_required: usize,
    pub(crate) rest: Option<Box<Type>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Object {
    pub(crate) fields: Vec<Field>,
    /// The type of properties not listed; `None` where there are none.
    pub(crate) others: Option<Box<Type>>,
    /// Properties left out because there were too many.
    pub(crate) n_cut: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) optional: bool,
    pub(crate) doc: Vec<String>,
    pub(crate) ty: Type,
}

impl Type {
    pub(crate) fn cut(why: impl Into<String>) -> Self {
        Self::Cut(Box::new(Self::Unknown), why.into())
    }

    /// An object of any properties.
    pub(crate) fn any_object() -> Self {
        Self::Object(Object { others: Some(Box::new(Self::Unknown)), ..Object::default() })
    }

    /// A value of one of `types`.
    pub(crate) fn union(types: impl IntoIterator<Item = Self>) -> Self {
        let mut members: Vec<Self> = Vec::new();
        for ty in types {
            match ty {
                Self::Never => {}
                Self::Unknown => return Self::Unknown,
                Self::Union(inner) => inner.into_iter().for_each(|ty| push_new(&mut members, ty)),
                ty => push_new(&mut members, ty),
            }
        }
        single(members, Self::Never, Self::Union)
    }

    /// A value of all of `types`. Objects are put into one.
    pub(crate) fn intersection(types: impl IntoIterator<Item = Self>) -> Self {
        let mut members: Vec<Self> = Vec::new();
        for ty in types {
            match ty {
                Self::Unknown => {}
                Self::Never => return Self::Never,
                Self::Intersection(inner) => inner.into_iter().for_each(|ty| push_met(&mut members, ty)),
                ty => push_met(&mut members, ty),
            }
        }
        if members.contains(&Self::Never) {
            return Self::Never;
        }
        single(members, Self::Unknown, Self::Intersection)
    }

    /// The names that can be seen in this type without going through a property or an item.
    pub(crate) fn names_directly(&self) -> Vec<usize> {
        match self {
            Self::Named(index) => vec![*index],
            Self::Union(types) | Self::Intersection(types) => {
                types.iter().flat_map(Self::names_directly).collect()
            }
            Self::Cut(ty, _) | Self::More(ty, _) => ty.names_directly(),
            _ => Vec::new(),
        }
    }
}

impl Object {
    fn merge(&mut self, other: Self) {
        for field in other.fields {
            match self.fields.iter_mut().find(|known| known.name == field.name) {
                Some(known) => {
                    known.optional &= field.optional;
                    let ty = std::mem::replace(&mut known.ty, Type::Unknown);
                    known.ty = Type::intersection([ty, field.ty]);
                    if known.doc.is_empty() {
                        known.doc = field.doc;
                    }
                }
                None => self.fields.push(field),
            }
        }
        self.others = match (self.others.take(), other.others) {
            (Some(a), Some(b)) => Some(Box::new(Type::intersection([*a, *b]))),
            (a, b) => a.or(b),
        };
        self.n_cut += other.n_cut;
    }
}

fn push_new(members: &mut Vec<Type>, ty: Type) {
    if !members.contains(&ty) {
        members.push(ty);
    }
}

fn push_met(members: &mut Vec<Type>, ty: Type) {
    let object = members.iter_mut().find_map(|member| match member {
        Type::Object(object) => Some(object),
        _ => None,
    });
    match (object, ty) {
        (Some(object), Type::Object(other)) => object.merge(other),
        (_, ty) => push_new(members, ty),
    }
}

fn single(mut members: Vec<Type>, none: Type, several: fn(Vec<Type>) -> Type) -> Type {
    match members.len() {
        0 => none,
        1 => members.remove(0),
        _ => several(members),
    }
}
