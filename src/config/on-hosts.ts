// A section as it is on each host: what is the same on all, with what differs on one laid over it, checked as a whole.
// What is wrong is told where it stands in the file, and once, even if each host has it from the same place.

import type { z } from 'zod';
import { overlay, type Layer, type Overlaid } from './overlay.js';
import { check, pathText, type Checked, type Finding } from './problems.js';

export interface OnHosts<Value> {
  /** By host; without those on which something is wrong. */
  readonly values: ReadonlyMap<string, Value>;
  readonly findings: readonly Finding[];
  /** Where something of the section stands in the file that is in force on a host. */
  locate(host: string, keys: Finding['keys']): Finding['keys'];
}

interface Variant<Value> {
  readonly hosts: readonly string[];
  /** Nothing differs. */
  readonly isPlain: boolean;
  readonly laid: Overlaid;
  readonly checked: Checked<Value>;
}

/** `own`: of hosts on which something differs. Without any host what is shared is checked by itself. */
export function checkOnHosts<Schema extends z.ZodType>(
  schema: Schema,
  shared: Layer,
  hosts: readonly string[],
  own: ReadonlyMap<string, Layer>,
): OnHosts<z.output<Schema>> {
  const variantOf = (layer: Layer | null, names: readonly string[]): Variant<z.output<Schema>> => {
    const laid = overlay(shared, layer);
    return { hosts: names, isPlain: layer === null, laid, checked: check(schema, laid.value) };
  };
  const alike = hosts.filter((host) => !own.has(host));
  const different = hosts.flatMap((host) => {
    const layer = own.get(host);
    return layer === undefined ? [] : [variantOf(layer, [host])];
  });
  const variants =
    alike.length > 0 || hosts.length === 0 ? [variantOf(null, alike), ...different] : different;
  return {
    values: valuesOf(variants),
    findings: placed(variants),
    locate: (host, keys) => {
      const variant = variants.find((each) => each.hosts.includes(host));
      return variant === undefined ? [...shared.keys, ...keys] : variant.laid.locate(keys).keys;
    },
  };
}

function valuesOf<Value>(variants: readonly Variant<Value>[]): ReadonlyMap<string, Value> {
  const values = new Map<string, Value>();
  for (const { hosts, checked } of variants) {
    if (checked.findings !== null) continue;
    for (const host of hosts) values.set(host, checked.value);
  }
  return values;
}

function placed(variants: readonly Variant<unknown>[]): Finding[] {
  const findings = new Map<string, Finding>();
  for (const { laid, checked } of variants) {
    for (const finding of checked.findings ?? []) {
      const { keys, shared } = laid.locate(finding.keys);
      const told =
        shared !== null && isShared(finding, variants) ? { ...finding, keys: shared } : { ...finding, keys };
      findings.set(textOf(told), told);
    }
  }
  return [...findings.values()];
}

/**
 * Of a section that has parts of both: something is missing in it, or does not go together. If it is so on a host where
 * nothing differs, or on all of them, it is not for what differs.
 */
function isShared(finding: Finding, variants: readonly Variant<unknown>[]): boolean {
  const text = textOf(finding);
  const having = variants.filter(({ checked }) => checked.findings?.some((other) => textOf(other) === text));
  return having.length === variants.length || having.some(({ isPlain }) => isPlain);
}

function textOf({ keys, given, expected }: Finding): string {
  return JSON.stringify([pathText(keys), given, expected]);
}
