// romulus convert: the same stream in other layers. libxc's octets stay what they are; libxl's framing and xl's header
// are put around them or taken off, in checkpointed streams around each checkpoint.
//
//   xl  ⊃  libxl  ⊃  libxc          inwards: what emulators said would be lost, so only where they said nothing
//                                    outwards to xl: with a configuration, which no stream has

import { readFile } from 'node:fs/promises';
import { libxlOpening } from '../save/libxl.js';
import { Judge } from '../stream/examine/judge.js';
import type { Span } from '../stream/examine/merge.js';
import type { Finding } from '../stream/examine/rules.js';
import { tee } from '../stream/examine/visitor.js';
import { type StreamVisitor, type WalkedRecord, recordSpan } from '../stream/examine/walk.js';
import { RecordType } from '../stream/format.js';
import type { Layer } from '../stream/record-reader.js';
import { LibxlRecordType } from '../stream/libxl.js';
import { concatenate, encodeRecord } from '../stream/writer.js';
import { encodeXlHeader, xlHeaderOf } from '../stream/xl.js';
import { type ExitCode, UsageError } from './exit-codes.js';
import type { ImageMaker } from './files/image-writer.js';
import type { InputFile } from './files/input.js';
import { type OnPause, rewrite } from './files/rewrite.js';

export interface ConvertVerbOptions {
  readonly to: Layer;
  /** A file with the domain's configuration, as libxl's JSON. */
  readonly config?: string;
}

/** What a walk found out before anything is written. */
interface Facts {
  readonly from: Layer;
  /** Where libxl's stream begins, or libxc's that lies in none. */
  readonly start: number;
  /** The octet after END or the last checkpoint. */
  readonly end: number;
}

/** @param report where it says what it has written */
export function convertVerb(
  path: string,
  out: string,
  options: ConvertVerbOptions,
  report: NodeJS.WritableStream = process.stderr,
): Promise<ExitCode> {
  return rewrite('convert', { path, out, report }, async (input, onPause, leftOut) => {
    const facts = await examine(input, options.to, onPause, leftOut);
    const xlHeader = await headerOfXl(facts.from, options);
    return async (maker) => {
      await maker.octets(xlHeader);
      await makeLayers(input, maker, facts, options.to);
      return `${facts.from} to ${options.to}`;
    };
  });
}

async function examine(
  input: InputFile,
  to: Layer,
  onPause: OnPause,
  leftOut: StreamVisitor,
): Promise<Facts> {
  const { path } = input;
  let start = -1;
  let emulators = 0;
  let bad = 0;
  let last: Finding | undefined;
  const judge = new Judge((finding) => {
    const { severity, rule } = finding;
    last = finding;
    bad += (severity === 'error' || severity === 'unreadable') && rule !== 'trailing' ? 1 : 0;
  });
  const watch: StreamVisitor = {
    libxl: (_header, offset) => (start = offset),
    libxc: (_headers, offset) => (start = start < 0 ? offset : start),
    record: ({ layer, type }) => {
      emulators += layer === 'libxl' && isEmulatorRecord(type) ? 1 : 0;
    },
  };
  const { result, length } = await input.walk(tee(leftOut, tee(watch, judge)), { onPause });
  judge.ended(result, length);
  const from = result.outermost;
  if (from === null && !result.backChannel && last !== undefined) {
    throw new UsageError(`${path}: ${last.message}`);
  }
  if (bad > 0 || from === null || start < 0) {
    const recovers = '; romulus recover makes an image of its last complete checkpoint';
    const hint = result.checkpoint === null ? '' : recovers;
    const what = result.backChannel ? "COLO's back channel" : 'unsound';
    throw new UsageError(`${path} is ${what} (see romulus verify)${hint}`);
  }
  // Taken out of its wrapper it is another file.
  if (from === to && result.wrapper === null) {
    throw new UsageError(`${path} is in the layers of ${to} already`);
  }
  if (to === 'libxc' && emulators > 0) {
    const what = `${emulators} records of emulators`;
    throw new UsageError(`${path} has ${what}, which a bare libxc stream cannot hold`);
  }
  return { from, start, end: result.streamEnd ?? result.offset };
}

async function headerOfXl(from: Layer, { to, config }: ConvertVerbOptions): Promise<Uint8Array> {
  if (to !== 'xl') return new Uint8Array(0);
  if (config === undefined) {
    throw new UsageError(
      `xl's header holds the domain's configuration, which a ${from} stream lacks: give it with --config (libxl's JSON)`,
    );
  }
  const text = await readFile(config, 'utf8');
  try {
    JSON.parse(text);
  } catch (error) {
    throw new UsageError(`${config} is no JSON: ${error instanceof Error ? error.message : ''}`);
  }
  return encodeXlHeader(xlHeaderOf(text));
}

async function makeLayers(input: InputFile, maker: ImageMaker, facts: Facts, to: Layer): Promise<void> {
  const { from, start, end } = facts;
  if ((from === 'libxc') === (to === 'libxc')) {
    await maker.copy({ offset: start, length: end - start });
    return;
  }
  const rewriter = new Rewriter(to !== 'libxc');
  await input.walk(rewriter, { end, onPause: async () => rewriter.flush(maker) });
  await rewriter.flush(maker);
}

/** Runs of libxc in the file, with (outwards) libxl's framing between. */
class Rewriter implements StreamVisitor {
  readonly #outwards: boolean;
  #jobs: (Span | Uint8Array)[] = [];

  constructor(outwards: boolean) {
    this.#outwards = outwards;
  }

  libxc(_headers: unknown, offset: number): void {
    if (this.#outwards) this.#jobs.push(concatenate(libxlOpening()));
    this.#copy({ offset, length: 40 });
  }

  record({ layer, type, offset, length }: WalkedRecord): void {
    if (layer !== 'libxc') return;
    this.#copy({ offset, length: recordSpan(length) });
    if (this.#outwards && type === RecordType.CHECKPOINT) {
      this.#jobs.push(encodeRecord(LibxlRecordType.CHECKPOINT_END));
    } else if (this.#outwards && type === RecordType.END) {
      this.#jobs.push(encodeRecord(LibxlRecordType.END));
    }
  }

  async flush(maker: ImageMaker): Promise<void> {
    const jobs = this.#jobs;
    this.#jobs = [];
    for (const job of jobs) await (job instanceof Uint8Array ? maker.octets(job) : maker.copy(job));
  }

  #copy(span: Span): void {
    const last = this.#jobs.at(-1);
    if (last !== undefined && !(last instanceof Uint8Array) && last.offset + last.length === span.offset) {
      this.#jobs[this.#jobs.length - 1] = { offset: last.offset, length: last.length + span.length };
    } else {
      this.#jobs.push(span);
    }
  }
}

function isEmulatorRecord(type: number): boolean {
  return type === LibxlRecordType.EMULATOR_CONTEXT || type === LibxlRecordType.EMULATOR_XENSTORE_DATA;
}
