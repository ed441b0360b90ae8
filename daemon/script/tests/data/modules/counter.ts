export let count = 0;

export function increment(): number {
  return ++count;
}

export function receiver(this: unknown): unknown {
  return this;
}

export default function (...values: unknown[]): unknown[] {
  return values;
}

export interface Shape {
  side: number;
}

export const constants = { answer: 42 };
