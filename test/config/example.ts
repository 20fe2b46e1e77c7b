// How an example says things: "# " begins an explanation, any other "#" switches a setting off.

import { parse } from 'yaml';
import { z } from 'zod';

/** With the settings that are switched off switched on: all but "# " before words. */
export function switchOn(source: string): string {
  return source.replace(/^( *)#(?! ?$| [^ ])/gm, '$1');
}

/** The sections of that name which are switched off, as alternatives to the one that is not; and the file without them. */
export function sectionsOf(source: string, name: string, indent = 0) {
  const section = new RegExp(`^ {${indent}}#${name}:\\n(?: {${indent}}#.*\\n)+`, 'gm');
  const sections = [...source.matchAll(section)].map(([text]): unknown => {
    return (parse(switchOn(text)) as Readonly<Record<string, unknown>>)[name];
  });
  return { sections, rest: source.replace(section, '') };
}

/** All keys of a schema's sections. */
export function keysOf(schema: z.ZodType): Set<string> {
  const keys = new Set<string>();
  const walk = (node: unknown): void => {
    if (typeof node !== 'object' || node === null) return;
    for (const [name, value] of Object.entries(node as Record<string, unknown>)) {
      if (name === 'properties' && typeof value === 'object' && value !== null) {
        for (const key of Object.keys(value)) keys.add(key);
      }
      walk(value);
    }
  };
  walk(z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }));
  return keys;
}
