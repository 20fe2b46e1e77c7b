// Holds a walked stream to the rules: the form of each record (form.ts), their places among each other (places.ts), and
// how the stream ends. Findings go out as they are made; nothing is kept but what the next record is judged by.

import type { StreamHeaders } from '../flow.js';
import { DomainType, PFN_MAX, RecordType, isOptionalRecord } from '../format.js';
import type { LibxlHeader } from '../libxl.js';
import { viewOf } from '../octets.js';
import { KNOWN_TYPES } from '../page-data.js';
import type { GuestWidth } from '../records/pv.js';
import { type XlHeader, xlConfigText } from '../xl.js';
import { DiskRules } from './disks.js';
import { libxcForm, libxlForm, pageDataForm } from './form.js';
import { isKnownRecord, pageTypeName, recordName } from './names.js';
import { Places } from './places.js';
import { type Finding, RULES, type RuleId, type Severity } from './rules.js';
import type { StreamVisitor, WalkEnd, WalkedPages, WalkedRecord } from './walk.js';

const LIBXL_OPTIONS_RESERVED = ~3;
const IMAGE_OPTIONS_RESERVED = 0xfffe;
/** An entry's upper half without its type: bits 32 to 51 of the pfn, and the reserved ones. */
const ENTRY_REST = 0x0fffffff;
const ENTRY_RESERVED = 0x0ff00000;
const UNKNOWN_TYPES = [5, 6, 7, 8];
/** What xl's migration says after the stream. */
const XL_HANDSHAKE = 'domain is yours, you are cleared to unpause\0';

export class Judge implements StreamVisitor {
  readonly #report: (finding: Finding) => void;
  readonly #worst = new Map<Severity, number>();
  #headers: StreamHeaders | null = null;
  #width: GuestWidth | null = null;
  #lastPfn = PFN_MAX;
  #backChannel = false;
  readonly #places: Places;
  readonly #disks = new DiskRules();
  /** Rules that the entries of the record that is being walked have broken. */
  readonly #entryRules = new Set<RuleId>();

  constructor(report: (finding: Finding) => void) {
    this.#report = report;
    this.#places = new Places((rule, offset, record, message) => this.finding(rule, offset, record, message));
  }

  /** Findings of a severity so far. */
  count(severity: Severity): number {
    return this.#worst.get(severity) ?? 0;
  }

  finding(rule: RuleId, offset: number, record: string | null, message: string): void {
    const { severity } = RULES[rule];
    this.#worst.set(severity, this.count(severity) + 1);
    this.#report({ rule, severity, offset, record, message });
  }

  xl(header: XlHeader): void {
    const ended = header.config.length > 0 && header.config[header.config.length - 1] === 0;
    if (!ended || !isJson(xlConfigText(header))) {
      this.finding('xl.config', 52, null, ended ? 'the configuration is not JSON' : 'it has no final NUL');
    }
  }

  libxl(_header: LibxlHeader, offset: number, options: number): void {
    this.#places.layered = true;
    if ((options & LIBXL_OPTIONS_RESERVED) !== 0) {
      this.finding('libxl.options', offset + 12, null, `options ${hex(options)}`);
    }
  }

  libxc(headers: StreamHeaders, offset: number, bytes: Uint8Array): void {
    this.#headers = headers;
    const view = viewOf(bytes);
    const options = view.getUint16(16);
    if ((options & IMAGE_OPTIONS_RESERVED) !== 0) {
      this.finding('libxc.options', offset + 16, null, `options ${hex(options)}`);
    }
    if (view.getUint16(18) !== 0 || view.getUint32(20) !== 0) {
      this.finding('libxc.reserved', offset + 18, null, 'in the image header');
    }
    if (view.getUint16(30) !== 0) {
      this.finding('libxc.reserved', offset + 30, null, 'in the domain header');
    }
  }

  backChannel(): void {
    this.#backChannel = true;
  }

  pageEntries(entries: DataView, pages: WalkedPages): void {
    let bad = 0;
    for (let at = 0; at < entries.byteLength; at += 8) {
      const high = entries.getUint32(at + 4, true);
      const known = (KNOWN_TYPES >>> (high >>> 28)) & 1;
      if (known === 0 || (high & ENTRY_REST) !== 0 || entries.getUint32(at, true) > this.#lastPfn) {
        bad += 1;
      }
    }
    if (bad > 0) {
      this.#badEntries(entries, pages.offset);
    }
  }

  record(record: WalkedRecord): void {
    const { layer, type, offset, length } = record;
    const name = recordName(layer, type);
    const find = (rule: RuleId, message: string): void => this.finding(rule, offset, name, message);
    if (record.dirtyPadding > 0) {
      find('padding', `${record.dirtyPadding} octets of padding are not zero`);
    }
    if (!isKnownRecord(layer, type)) {
      const rule = isOptionalRecord(type) ? 'optional-record' : 'record-type';
      find(rule, `${name}, ${length} octets`);
      return;
    }
    if (layer === 'libxl') {
      libxlForm(record, this.#backChannel, find);
      this.#places.libxl(record, find);
      return;
    }
    if (this.#backChannel) {
      this.#backChannelRecord(record, find);
      return;
    }
    const headers = this.#headers;
    const domainType = headers?.domainType;
    if (!headers || (domainType !== DomainType.X86_PV && domainType !== DomainType.X86_HVM)) return;
    if (type === RecordType.CHECKPOINT_DIRTY_PFN_LIST) {
      find('dirty-pfn-list.direction', 'in a stream from the primary');
    }
    this.#places.libxc(record, headers, find);
    this.#disks.record(record, find);
    if (record.pages === null) {
      const meaning = libxcForm(record, domainType, this.#width, find);
      this.#width = meaning.width ?? this.#width;
      this.#lastPfn = meaning.lastPfn ?? this.#lastPfn;
    } else {
      pageDataForm(record.pages, find);
      this.#entryRules.clear();
    }
    this.#places.passed(record, domainType, find);
  }

  /** Says of the end what is to say. */
  ended(end: WalkEnd, streamLength: number): void {
    if (end.kind === 'stopped') return;
    if (end.kind === 'ended') {
      if (end.trailing.length > 0) {
        this.#trailing(end, streamLength);
      }
      return;
    }
    const whole = end.kind === 'open' && !end.recordsSince;
    if (end.backChannel ? end.kind === 'open' : whole && end.checkpoint !== null) {
      if (end.checkpoint !== null) {
        this.finding('no-end', end.offset, null, `it ends with checkpoint ${end.checkpoint.number}`);
      }
      return;
    }
    const where = end.where === null ? 'ends without END' : `ends inside ${end.where}`;
    this.finding('truncated', end.offset, end.where, `the stream ${where}; ${lastCheckpoint(end)}`);
  }

  #trailing(end: WalkEnd, streamLength: number): void {
    const text = Buffer.from(end.trailing).toString('latin1');
    const count = streamLength - end.offset;
    if (end.outermost === 'xl' && text === XL_HANDSHAKE) {
      this.finding('handshake', end.offset, null, `${count} octets of xl's migration protocol follow END`);
    } else {
      this.finding('trailing', end.offset, null, `${count} octets follow END`);
    }
  }

  /** Looks closer at entries of which some are bad: each rule is told once a record, with the first that breaks it. */
  #badEntries(entries: DataView, offset: number): void {
    const tell = (rule: RuleId, message: string): void => {
      if (!this.#entryRules.has(rule)) {
        this.#entryRules.add(rule);
        this.finding(rule, offset, 'PAGE_DATA', message);
      }
    };
    for (let at = 0; at < entries.byteLength; at += 8) {
      const entry = entries.getBigUint64(at, true);
      const pfn = entry & 0xfffffffffffffn;
      const type = Number(entry >> 60n);
      if (UNKNOWN_TYPES.includes(type)) {
        tell('page-data.pfn-type', `pfn 0x${pfn.toString(16)} of type ${pageTypeName(type)}`);
      }
      if ((entries.getUint32(at + 4, true) & ENTRY_RESERVED) !== 0) {
        tell('page-data.pfn-reserved', `entry 0x${entry.toString(16).padStart(16, '0')}`);
      }
      if (pfn > this.#lastPfn) {
        tell('page-data.pfn-range', `pfn 0x${pfn.toString(16)}, the last is ${hex(this.#lastPfn)}`);
      }
    }
  }

  #backChannelRecord(record: WalkedRecord, find: (rule: RuleId, message: string) => void): void {
    if (record.type === RecordType.CHECKPOINT_DIRTY_PFN_LIST) {
      libxcForm(record, DomainType.X86_HVM, null, find);
    } else {
      find('back-channel', `${recordName('libxc', record.type)} is no record of the back channel`);
    }
  }
}

/** "the last complete checkpoint is 5, it ends at 1234" */
export function lastCheckpoint(end: WalkEnd): string {
  return end.checkpoint === null
    ? 'no checkpoint is complete'
    : `the last complete checkpoint is ${end.checkpoint.number}, which ends at ${end.checkpoint.end}`;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function hex(value: number): string {
  return `0x${(value >>> 0).toString(16)}`;
}
