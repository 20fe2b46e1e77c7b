// What differs on one host, laid over what is the same on all, and the way back: where in the file something of the
// result stands.
//
//   shared:  {network: [{id: lan, mac: M}], dirty: fuse}        maps key by key, lists of things with an `id` by id;
//   own:     {network: [{id: lan, tap: tap7}]}                  anything else of the host's own replaces what is shared
//   result:  {network: [{id: lan, mac: M, tap: tap7}], dirty: fuse}

import type { Keys } from './problems.js';
import { valueAt } from './problems.js';

/** No section of a configuration is deeper; a value that contains itself is. */
const DEPTH_MAX = 8;

/** Where a value stands: in one place, or, a map or list of both, in two. */
interface Place {
  readonly keys: Keys;
  readonly own: Keys | null;
  /** Of a map or list of both: its parts. */
  readonly parts: ReadonlyMap<PropertyKey, Place>;
}

export interface Located {
  readonly keys: Keys;
  readonly shared: Keys | null;
}

export interface Overlaid {
  readonly value: unknown;
  /**
   * Where something of the value stands in the file, or would stand if it is missing. `shared`: it may as well be said
   * to stand there, where all hosts have it from; null if not.
   */
  readonly locate: (keys: Keys) => Located;
}

export interface Layer {
  readonly value: unknown;
  /** Where it stands in the file. */
  readonly keys: Keys;
}

/** A layer whose value is undefined lays nothing over the other. */
export function overlay(shared: Layer, own: Layer | null): Overlaid {
  const [value, place] = own === null ? [shared.value, standing(shared.keys)] : laid(shared, own, 0);
  return { value, locate: (keys) => located(place, keys) };
}

type Laid = readonly [value: unknown, place: Place];

function standing(keys: Keys): Place {
  return { keys, own: null, parts: new Map() };
}

function laid(shared: Layer, own: Layer, depth: number): Laid {
  if (own.value === undefined) return [shared.value, standing(shared.keys)];
  if (depth < DEPTH_MAX) {
    if (isMap(shared.value) && isMap(own.value)) return laidMaps(shared, own, depth);
    if (isListOfNamed(shared.value) && isListOfNamed(own.value)) return laidLists(shared, own, depth);
  }
  return [own.value, standing(own.keys)];
}

function laidMaps(shared: Layer, own: Layer, depth: number): Laid {
  const parts = new Map<string, Laid>();
  for (const key of new Set([...keysOf(shared.value), ...keysOf(own.value)])) {
    parts.set(key, laid(part(shared, key), part(own, key), depth + 1));
  }
  const value = Object.fromEntries([...parts].map(([key, [given]]) => [key, given]));
  return [value, ofBoth(shared, own, parts)];
}

/** In the order of what is shared, then what the host has besides. An id that is there twice stays there twice. */
function laidLists(shared: Layer, own: Layer, depth: number): Laid {
  const ownIds = idsOf(own.value);
  const sharedIds = idsOf(shared.value);
  const items = sharedIds.map((id, index): Laid => {
    const at = sharedIds.indexOf(id) === index ? ownIds.indexOf(id) : -1;
    return laid(part(shared, index), at < 0 ? { value: undefined, keys: [] } : part(own, at), depth + 1);
  });
  ownIds.forEach((id, index) => {
    if (ownIds.indexOf(id) === index && sharedIds.includes(id)) return;
    const added = part(own, index);
    items.push([added.value, standing(added.keys)]);
  });
  return [items.map(([given]) => given), ofBoth(shared, own, items.entries())];
}

function ofBoth(shared: Layer, own: Layer, parts: Iterable<readonly [PropertyKey, Laid]>): Place {
  const places = Array.from(parts, ([key, [, place]]) => [key, place] as const);
  return { keys: shared.keys, own: own.keys, parts: new Map(places) };
}

function located(top: Place, keys: Keys): Located {
  let place = top;
  for (const [index, key] of keys.entries()) {
    const next = place.parts.get(key);
    if (next === undefined) return inside(place, keys.slice(index));
    place = next;
  }
  return inside(place, []);
}

function inside({ keys, own }: Place, rest: Keys): Located {
  if (own === null) return { keys: [...keys, ...rest], shared: null };
  return { keys: [...own, ...rest], shared: [...keys, ...rest] };
}

function part({ value, keys }: Layer, key: string | number): Layer {
  return { value: valueAt(value, [key]), keys: [...keys, key] };
}

export function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function keysOf(value: unknown): string[] {
  return isMap(value) ? Object.keys(value) : [];
}

function isListOfNamed(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0 && idsOf(value).every((id) => typeof id === 'string');
}

function idsOf(value: unknown): unknown[] {
  return Array.isArray(value)
    ? value.map((item: unknown) => (isMap(item) ? valueAt(item, ['id']) : null))
    : [];
}
