// The kinds of field that a configuration is made of. Each one's message completes the sentence "expected …".

import { isIP } from 'node:net';
import { z } from 'zod';
import { valueAt } from './problems.js';
import { nearest } from './suggest.js';
import { formatSize, parseSize } from './units.js';

/** A mapping with these keys and no others. The message of unknown keys has one line for each of them. */
export function section<Shape extends z.core.$ZodLooseShape>(shape: Shape) {
  const known = Object.keys(shape);
  return z.strictObject(shape, {
    error: (issue) => {
      if (issue.code !== 'unrecognized_keys') return `a section with ${known.join(', ')}`;
      return issue.keys.map((key) => unknownKey(key, known)).join('\n');
    },
  });
}

function unknownKey(key: string, known: readonly string[]): string {
  return unknown(key, known, 'key');
}

/** What is expected in the place of a word that is not known. */
export function unknown(word: string, known: readonly string[], what: string): string {
  const hint = nearest(word, known);
  if (hint !== null) return `${hint} (did you mean that? there is no such ${what})`;
  return `one of ${known.join(', ')} (there is no such ${what})`;
}

/** A mapping of names to values of one kind. The message of a name is that of `name`. */
export function named<Value extends z.core.$ZodType>(
  name: z.ZodType<string, string>,
  value: Value,
  maximum: number,
  expected: string,
) {
  return z
    .record(name, value, {
      error: (issue) => (issue.code === 'invalid_key' ? (issue.issues[0]?.message ?? expected) : expected),
    })
    .refine(
      (given) => {
        const count = Object.keys(given).length;
        return count >= 1 && count <= maximum;
      },
      { error: expected },
    );
}

export function wholeNumber(
  minimum: number,
  maximum: number,
  expected = `a whole number from ${minimum} to ${maximum}`,
) {
  return z.int({ error: expected }).min(minimum, { error: expected }).max(maximum, { error: expected });
}

/** Milliseconds. */
export function duration(minimum: number, maximum: number) {
  return wholeNumber(minimum, maximum, `a whole number of milliseconds from ${minimum} to ${maximum}`);
}

export function flag() {
  return z.boolean({ error: 'true or false' });
}

export function choice<const Value extends string>(values: readonly Value[]) {
  return z.enum(values, { error: `one of ${values.join(', ')}` });
}

/** Not empty, and without the octet that no path, argument or host name can hold. */
export function text(expected: string) {
  return z
    .string({ error: expected })
    .regex(/^[^\0]+$/, { error: expected })
    .max(4096, { error: expected });
}

/** Octets come out. @throws RangeError if the bounds are no sizes */
export function size(
  minimum: string,
  maximum: string,
  accept: (octets: number) => boolean = () => true,
  rule = '',
) {
  const least = parseSize(minimum);
  const most = parseSize(maximum);
  if (least === null || most === null) throw new RangeError(`no sizes: ${minimum}, ${maximum}`);
  const expected = `a size from ${minimum} to ${maximum}${rule} (such as ${formatSize(least)}; B, KiB, MiB, GiB)`;
  return z.union([z.string(), z.number()], { error: expected }).transform((given, context): number => {
    const octets = parseSize(given);
    if (octets !== null && octets >= least && octets <= most && accept(octets)) return octets;
    context.issues.push({ code: 'custom', input: given, message: expected });
    return z.NEVER;
  });
}

/** Makes a path absolute: relative ones start from the directory of the file they stand in. */
export type Resolve = (file: string) => string;

export function pathField(resolve: Resolve) {
  return text('the path of a file').transform(resolve);
}

export function list<Item extends z.core.$ZodType>(
  item: Item,
  minimum: number,
  maximum: number,
  expected: string,
) {
  return z
    .array(item, { error: expected })
    .min(minimum, { error: expected })
    .max(maximum, { error: expected });
}

export function url(protocols: readonly string[]) {
  const expected = `an address that begins with ${protocols.map((protocol) => `${protocol}//`).join(' or ')}`;
  return text(expected).refine(
    (given) => {
      if (!URL.canParse(given)) return false;
      const parsed = new URL(given);
      return protocols.includes(parsed.protocol) && parsed.hostname !== '';
    },
    { error: expected, abort: true },
  );
}

const HOST_NAME = /^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/i;

/** A host name or address by itself: no port, no wildcard. */
export function hostName(expected: string) {
  const isName = (given: string) => isIP(given) !== 0 || HOST_NAME.test(given);
  return text(expected).refine(isName, { error: expected, abort: true });
}

/** As it stands in a URL. */
export function authority(host: string, port: number): string {
  return `${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
}

/** As a certificate says it. */
export function certificateName() {
  return hostName("a host name or address, as in a certificate's subject alternative names (no wildcard)");
}

/** Where is listened. */
export function listenHost() {
  return text('a host name or address to listen on');
}

/** A domain's name: it becomes a metric's label, part of a file's name and a word on the wire. */
export function identifier() {
  const expected = 'a name of 1 to 63 letters a-z, digits and hyphens that begins with a letter or digit';
  return z.string({ error: expected }).regex(/^[a-z0-9][a-z0-9-]{0,62}$/, { error: expected });
}

/** One of several fields that do not go together: its keys from what is checked, and what was expected there. */
export function problem(context: z.core.ParsePayload, keys: PropertyKey[], expected: string): void {
  context.issues.push({ code: 'custom', path: keys, input: context.value, message: expected });
}

/** For a list whose items are told apart by this key of theirs. */
export function distinct<Key extends string>(key: Key, expected: string) {
  return (context: z.core.ParsePayload<readonly Readonly<Record<Key, string>>[]>): void => {
    const given = context.value.map((item) => item[key]);
    given.forEach((one, index) => {
      if (given.indexOf(one) !== index) problem(context, [index, key], expected);
    });
  };
}

/** Domains are told apart by their names. */
export function distinctNames(context: z.core.ParsePayload<readonly unknown[]>): void {
  const seen = new Set<string>();
  context.value.forEach((domain, index) => {
    const name = valueAt(domain, ['name']);
    if (typeof name !== 'string') return;
    if (seen.has(name)) {
      context.issues.push({
        code: 'custom',
        path: [index, 'name'],
        input: name,
        message: 'a name that no other domain here has',
      });
    }
    seen.add(name);
  });
}
