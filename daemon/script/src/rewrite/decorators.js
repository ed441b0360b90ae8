// What decorated classes call at run time: the decorators of TC39's proposal of 2022-03, the form that Deno runs.
// In the made code this is one line, the value of one constant. Every statement ends with a semicolon, and a comment has
// its lines to itself.
//
// A class carries its decorators in placeholders: static methods whose names are symbols that stand for a list of
// decorators. They are gone before any code can see the class. So all state belongs to one evaluation of a class.
(() => {
  const METADATA = Symbol.metadata ?? Symbol.for("Symbol.metadata");
  const placeholders = new WeakMap();
  const finished = new WeakMap();

  const runtime = {
    // The placeholder that was made last.
    last: undefined,

    // Evaluates to the name of a placeholder.
    decorators(...decorators) {
      const symbol = Symbol();
      runtime.last = { decorators };
      placeholders.set(symbol, runtime.last);
      return symbol;
    },

    // The computed name of the element behind a placeholder, converted once.
    key(placeholder, value) {
      [placeholder.name] = Reflect.ownKeys({ [value]: 0 });
      return placeholder.name;
    },

    // Where the function of a private method or accessor stands until it is taken from the class.
    hidden() {
      return runtime.last.hidden = Symbol();
    },

    // What a decorated class extends; its decorators are evaluated before that and wait for `waiting`.
    heritage(decorators, base) {
      runtime.last = decorators;
      return base;
    },

    waiting() {
      return runtime.decorators(...runtime.last);
    },

    // Applies all decorators of a class, before its static fields and blocks run.
    apply(target, name, isDecorated, elements) {
      if (name !== undefined && typeof Object.getOwnPropertyDescriptor(target, "name")?.value === "string") {
        Object.defineProperty(target, "name", { value: name, configurable: true });
      }
      const found = takePlaceholders(target);
      const ofClass = isDecorated ? found.shift().decorators : [];
      const inherited = Object.getPrototypeOf(target)[METADATA];
      const metadata = Object.create(inherited === undefined ? null : inherited);
      const initializers = { static: [], instance: [], class: [] };
      const state = {
        class: target,
        start(instance) {
          run(initializers.instance, instance);
        },
      };
      const decorated = { static: new Map(), instance: new Map() };
      elements.forEach((element, index) => Object.assign(element, found[index], { index }));
      for (const element of elements.toSorted((a, b) => rank(a) - rank(b))) {
        const side = element.static ? "static" : "instance";
        refuseTwice(decorated[side], element);
        const home = element.static ? target : target.prototype;
        state[element.index] = applyToMember(home, element, metadata, initializers[side]);
      }
      if (isDecorated) {
        state.class = applyToClass(target, ofClass, metadata, initializers.class);
        finished.set(target, { state, initializers: initializers.class });
      }
      const property = { value: metadata, enumerable: true, configurable: true };
      Object.defineProperty(state.class, METADATA, property);
      run(initializers.static, target);
      return state;
    },

    // The value of a class that has decorators itself.
    finish(target) {
      const { state, initializers } = finished.get(target);
      run(initializers, state.class);
      return state.class;
    },
  };

  const run = (initializers, receiver) => {
    for (const initializer of initializers) {
      initializer.call(receiver);
    }
  };

  // Symbols are listed in the order in which the class got them.
  const takePlaceholders = (target) => {
    const symbols = Object.getOwnPropertySymbols(target).filter((symbol) => placeholders.has(symbol));
    return symbols.map((symbol) => {
      delete target[symbol];
      return placeholders.get(symbol);
    });
  };

  const rank = ({ static: isStatic, kind }) => (isStatic ? 0 : 2) + (kind === "field" ? 1 : 0);

  // Of two public elements with one name only the last one is left.
  const refuseTwice = (kinds, { kind, name, private: isPrivate }) => {
    if (kind === "field" || isPrivate) {
      return;
    }
    const before = kinds.get(name);
    const isPair = before === "getter" && kind === "setter" || before === "setter" && kind === "getter";
    if (before !== undefined && !isPair) {
      throw new Error(`only one method or accessor named ${String(name)} can be decorated`);
    }
    kinds.set(name, isPair ? "pair" : kind);
  };

  // Calls decorators from the innermost on; `accept` makes what one returns the value for the next.
  const callAll = (decorators, value, initializers, contextOf, accept) => {
    for (const decorator of decorators.toReversed()) {
      if (typeof decorator !== "function") {
        throw new TypeError("a decorator must be a function");
      }
      let isRunning = true;
      const addInitializer = (initializer) => {
        if (!isRunning) {
          throw new Error("addInitializer works only while its decorator runs");
        }
        mustBeFunction(initializer, "an initializer");
        initializers.push(initializer);
      };
      let result;
      try {
        result = decorator(value, contextOf(addInitializer));
      } finally {
        isRunning = false;
      }
      if (result !== undefined) {
        value = accept(result, value);
      }
    }
    return value;
  };

  const mustBeFunction = (value, what) => {
    if (typeof value !== "function") {
      throw new TypeError(`${what} must be a function`);
    }
  };

  const applyToClass = (target, decorators, metadata, initializers) => {
    const { name } = target;
    const contextOf = (addInitializer) => ({ kind: "class", name, addInitializer, metadata });
    const accept = (result) => {
      mustBeFunction(result, "what a class decorator returns");
      return result;
    };
    return callAll(decorators, target, initializers, contextOf, accept);
  };

  const applyToMember = (home, element, metadata, initializers) => {
    const { kind, name, decorators } = element;
    const [isStatic, isPrivate] = [element.static === true, element.private === true];
    const own = ownFunctions(home, element);
    const inits = [];
    const contextOf = (addInitializer) => ({
      kind,
      name,
      static: isStatic,
      private: isPrivate,
      metadata,
      addInitializer,
      access: accessTo(element, own),
    });
    const accept = (result, value) => {
      if (kind === "accessor") {
        return acceptAccessor(result, value, inits);
      }
      mustBeFunction(result, `what a ${kind} decorator returns`);
      if (kind !== "field") {
        return result;
      }
      inits.push(result);
      return value;
    };
    const value = callAll(decorators, given(kind, own), initializers, contextOf, accept);
    replace(kind, own, value);
    if (kind !== "field" && !isPrivate) {
      Object.defineProperty(home, name, own);
    }
    const init = (instance, value) => inits.reduce((value, init) => init.call(instance, value), value);
    return { init, value: own.value, get: own.get, set: own.set };
  };

  // A descriptor of the functions that the class has for an element.
  const ownFunctions = (home, { kind, name, hidden, private: isPrivate, get, set }) => {
    if (hidden !== undefined) {
      const own = Object.getOwnPropertyDescriptor(home, hidden);
      delete home[hidden];
      Object.defineProperty(own.value ?? own.get ?? own.set, "name", { value: "", configurable: true });
      return own;
    }
    if (isPrivate) {
      return { get, set };
    }
    return kind === "field" ? {} : Object.getOwnPropertyDescriptor(home, name);
  };

  const given = (kind, own) => {
    const { value, get, set } = own;
    return { field: undefined, method: value, getter: get, setter: set, accessor: { get, set } }[kind];
  };

  const replace = (kind, own, value) => {
    if (kind === "accessor") {
      [own.get, own.set] = [value.get, value.set];
    } else if (kind !== "field") {
      own[{ method: "value", getter: "get", setter: "set" }[kind]] = value;
    }
  };

  const acceptAccessor = (result, { get, set }, inits) => {
    if (typeof result !== "object" || result === null) {
      throw new TypeError("what an accessor decorator returns must be an object with get, set or init");
    }
    for (const part of ["get", "set", "init"]) {
      if (result[part] !== undefined) {
        mustBeFunction(result[part], `the ${part} that an accessor decorator returns`);
      }
    }
    if (result.init !== undefined) {
      inits.push(result.init);
    }
    return { get: result.get ?? get, set: result.set ?? set };
  };

  // Functions that take the object as an argument or, as the proposal had it at first, as their receiver.
  const accessTo = ({ kind, name, private: isPrivate }, own) => {
    const isOpen = kind === "field" && !isPrivate;
    const read = (target) => isOpen ? target[name] : kind === "method" ? own.value : own.get.call(target);
    const write = (target, value) => isOpen ? target[name] = value : own.set.call(target, value);
    const has = (target) => name in target;
    const get = function (...target) {
      return read(target.length > 0 ? target[0] : this);
    };
    const set = function (...values) {
      const [target, value] = values.length > 1 ? values : [this, values[0]];
      write(target, value);
    };
    return {
      ...(isPrivate ? {} : { has }),
      ...(kind === "setter" ? {} : { get }),
      ...(["field", "accessor", "setter"].includes(kind) ? { set } : {}),
    };
  };

  return runtime;
})()
