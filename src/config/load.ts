// From a file or an object to a configuration, or to a ConfigError that tells every problem at once.

import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { inspect } from 'node:util';
import { parseDocument } from 'yaml';
import type { z } from 'zod';
import { asError } from '../errors.js';
import { ConfigError, type ConfigErrorCode, type ConfigProblem } from './error.js';
import { type PrimaryConfig, primarySchema, type SecondaryConfig, secondarySchema } from './schema.js';

const FILE_BYTES_MAX = 2 ** 20;
const GIVEN_CHARACTERS_MAX = 80;

/** Where an object came from. */
export interface Origin {
  /** What relative paths start from; default: the working directory. */
  readonly directory?: string;
  /** The file's name for error messages. */
  readonly file?: string;
}

/** @throws ConfigError */
export async function loadPrimaryConfig(file: string): Promise<PrimaryConfig> {
  return parsePrimaryConfig(await readYaml(file), { directory: path.dirname(path.resolve(file)), file });
}

/** @throws ConfigError */
export async function loadSecondaryConfig(file: string): Promise<SecondaryConfig> {
  return parseSecondaryConfig(await readYaml(file), { directory: path.dirname(path.resolve(file)), file });
}

/** @throws ConfigError INVALID */
export function parsePrimaryConfig(given: unknown, origin: Origin = {}): PrimaryConfig {
  return check(primarySchema(origin.directory ?? process.cwd()), given, origin);
}

/** @throws ConfigError INVALID */
export function parseSecondaryConfig(given: unknown, origin: Origin = {}): SecondaryConfig {
  return check(secondarySchema(origin.directory ?? process.cwd()), given, origin);
}

async function readYaml(file: string): Promise<unknown> {
  let source: string;
  try {
    const { size } = await stat(file);
    if (size > FILE_BYTES_MAX) {
      throw problem('TOO_LARGE', file, `${size} octets`, `at most ${FILE_BYTES_MAX} octets`);
    }
    source = await readFile(file, 'utf8');
  } catch (thrown) {
    if (thrown instanceof ConfigError) throw thrown;
    throw problem('UNREADABLE', file, asError(thrown).message, 'a file that can be read', thrown);
  }
  return parseYaml(source, file);
}

function parseYaml(source: string, file: string): unknown {
  const document = parseDocument(source, { logLevel: 'error', uniqueKeys: true });
  // A warning is about a tag that YAML does not know: the value would be taken for something that it is not.
  const faults = [...document.errors, ...document.warnings];
  if (faults.length > 0) {
    const problems = faults.map((fault) => ({
      path: fault.linePos ? `line ${fault.linePos[0].line}, column ${fault.linePos[0].col}` : '(top)',
      given: firstLine(fault.message),
      expected: 'YAML',
    }));
    throw new ConfigError('BAD_YAML', file, problems);
  }
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (thrown) {
    throw problem('BAD_YAML', file, firstLine(asError(thrown).message), 'YAML with few aliases', thrown);
  }
}

function problem(
  code: ConfigErrorCode,
  file: string,
  given: string,
  expected: string,
  cause?: unknown,
): ConfigError {
  return new ConfigError(code, file, [{ path: '(top)', given, expected }], { cause });
}

function firstLine(message: string): string {
  return message.replace(/\n.*/s, '');
}

function check<Schema extends z.ZodType>(schema: Schema, given: unknown, origin: Origin): z.output<Schema> {
  const result = schema.safeParse(given);
  if (result.success) return result.data;
  const problems = result.error.issues.flatMap((issue) => problemsOf(issue, given, []));
  throw new ConfigError('INVALID', origin.file ?? null, problems);
}

type Issue = z.core.$ZodIssue;
type Keys = readonly PropertyKey[];

function problemsOf(issue: Issue, top: unknown, prefix: Keys): ConfigProblem[] {
  const keys = [...prefix, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    const hints = issue.message.split('\n');
    return issue.keys.map((key, index) => {
      const unknown = [...keys, key];
      const given = print(valueAt(top, unknown));
      return { path: pathText(unknown), given, expected: hints[index] ?? issue.message };
    });
  }
  if (issue.code === 'invalid_union') {
    // One member took the value for its own and found fault inside it: its complaints are the useful ones.
    const [member, another] = issue.errors.filter((issues) => !issues.some(refusesTheWhole));
    if (member && !another) return member.flatMap((inner) => problemsOf(inner, top, keys));
  }
  const value = valueAt(top, keys);
  const given = value === undefined ? null : print(value);
  return [{ path: pathText(keys), given, expected: issue.message }];
}

function refusesTheWhole(issue: Issue): boolean {
  return issue.path.length === 0 && (issue.code === 'invalid_type' || issue.code === 'invalid_value');
}

function pathText(keys: Keys): string {
  let text = '';
  for (const key of keys) {
    if (typeof key === 'number') text += `[${key}]`;
    else text += text === '' ? String(key) : `.${String(key)}`;
  }
  return text === '' ? '(top)' : text;
}

function valueAt(top: unknown, keys: Keys): unknown {
  let value = top;
  for (const key of keys) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Readonly<Record<PropertyKey, unknown>>)[key];
  }
  return value;
}

function print(value: unknown): string {
  // In one line: `compact: true` is what keeps long arrays from being set in columns.
  const oneLine = { compact: true, breakLength: Infinity };
  const text = inspect(value, { ...oneLine, depth: 1, maxArrayLength: 8, maxStringLength: 64 });
  return text.length > GIVEN_CHARACTERS_MAX ? `${text.slice(0, GIVEN_CHARACTERS_MAX)}…` : text;
}
