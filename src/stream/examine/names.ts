// What records and page types are called in the specifications: "PAGE_DATA", "LIBXC_CONTEXT", "L4TAB_PIN".

import { PageType, RecordType } from '../format.js';
import { LibxlRecordType } from '../libxl.js';

const libxcNames = invert(RecordType);
const libxlNames = invert(LibxlRecordType);
const pageTypeNames = invert(PageType);

export function recordName(layer: 'libxl' | 'libxc', type: number): string {
  const name = (layer === 'libxl' ? libxlNames : libxcNames).get(type);
  return name ?? `type 0x${type.toString(16).padStart(8, '0')}`;
}

export function isKnownRecord(layer: 'libxl' | 'libxc', type: number): boolean {
  return (layer === 'libxl' ? libxlNames : libxcNames).has(type);
}

export function pageTypeName(type: number): string {
  return pageTypeNames.get(type) ?? `reserved 0x${type.toString(16)}`;
}

function invert(table: Readonly<Record<string, number>>): ReadonlyMap<number, string> {
  return new Map(Object.entries(table).map(([name, value]) => [value, name]));
}
