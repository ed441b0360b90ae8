//! What a model is told of upstream tools: TypeScript declarations, search, and checks of arguments.
