// From what a schema says of a value to problems: which key, what was given there, what was expected.

import { inspect } from 'node:util';
import type { z } from 'zod';
import type { ConfigProblem } from './error.js';

const GIVEN_CHARACTERS_MAX = 80;

type Issue = z.core.$ZodIssue;
/** From the top of what was given. */
export type Keys = readonly PropertyKey[];

/** A problem before its place is written down. */
export interface Finding {
  readonly keys: Keys;
  /** The value that was given, printed short; null if there was none. */
  readonly given: string | null;
  readonly expected: string;
}

export type Checked<Value> =
  | { readonly value: Value; readonly findings: null }
  | { readonly value: null; readonly findings: readonly Finding[] };

/** Nothing is thrown: whoever puts a configuration together tells all findings at once. */
export function check<Schema extends z.ZodType>(schema: Schema, given: unknown): Checked<z.output<Schema>> {
  const result = schema.safeParse(given);
  if (result.success) return { value: result.data, findings: null };
  return { value: null, findings: result.error.issues.flatMap((issue) => findingsOf(issue, given, [])) };
}

export function problemOf({ keys, given, expected }: Finding): ConfigProblem {
  return { path: pathText(keys), given, expected };
}

function findingsOf(issue: Issue, top: unknown, prefix: Keys): Finding[] {
  const keys = [...prefix, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    const hints = issue.message.split('\n');
    return issue.keys.map((key, index) => {
      const unknownKeys = [...keys, key];
      return {
        keys: unknownKeys,
        given: printed(valueAt(top, unknownKeys)),
        expected: hints[index] ?? issue.message,
      };
    });
  }
  if (issue.code === 'invalid_union') {
    // One member took the value for its own and found fault inside it: its complaints are the useful ones.
    const members = issue.errors.filter((issues) => !issues.some((inner) => refusesTheWhole(inner)));
    const [member, another] = members;
    if (member !== undefined && another === undefined) {
      return member.flatMap((inner) => findingsOf(inner, top, keys));
    }
  }
  return [{ keys, given: printed(valueAt(top, keys)), expected: issue.message }];
}

function refusesTheWhole(issue: Issue): boolean {
  return issue.path.length === 0 && (issue.code === 'invalid_type' || issue.code === 'invalid_value');
}

export function pathText(keys: Keys): string {
  let text = '';
  for (const key of keys) {
    if (typeof key === 'number') text += `[${key}]`;
    else if (typeof key === 'string' && !/^[\w-]+$/.test(key)) text += `[${JSON.stringify(key)}]`;
    else text += text === '' ? String(key) : `.${String(key)}`;
  }
  return text === '' ? '(top)' : text;
}

export function valueAt(top: unknown, keys: Keys): unknown {
  let value = top;
  for (const key of keys) {
    // What every object inherits is nothing that was given.
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Readonly<Record<PropertyKey, unknown>>)[key];
  }
  return value;
}

/** Null: there is nothing. */
export function printed(value: unknown): string | null {
  if (value === undefined) return null;
  // In one line: `compact: true` is what keeps long arrays from being set in columns.
  const oneLine = { compact: true, breakLength: Infinity };
  const text = inspect(value, { ...oneLine, depth: 1, maxArrayLength: 8, maxStringLength: 64 });
  return text.length > GIVEN_CHARACTERS_MAX ? `${text.slice(0, GIVEN_CHARACTERS_MAX)}…` : text;
}
