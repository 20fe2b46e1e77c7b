// romulus convert: the same stream in other layers. libxc's octets stay what they are; libxl's framing and xl's header
// are put around them or taken off, in checkpointed streams around each checkpoint.
//
//   xl  ⊃  libxl  ⊃  libxc          inwards: what emulators said would be lost, so only where they said nothing
//                                    outwards to xl: with a configuration, which no stream has

import { readFile } from 'node:fs/promises';
import { FileSink } from '../save/file-sink.js';
import { Judge } from '../stream/examine/judge.js';
import type { Span } from '../stream/examine/merge.js';
import { tee } from '../stream/examine/tee.js';
import { type StreamVisitor, StreamWalker, type WalkedRecord, recordSpan } from '../stream/examine/walk.js';
import { RecordType } from '../stream/format.js';
import type { Layer } from '../stream/layer-item.js';
import { LibxlRecordType, encodeLibxlHeader } from '../stream/libxl.js';
import { concatenate, encodeRecord } from '../stream/writer.js';
import { encodeXlHeader, xlHeaderOf } from '../stream/xl.js';
import { formatBytes } from './demo/screen.js';
import { ExitCode } from './exit-codes.js';
import { ImageWriter } from './files/image-writer.js';
import { InputFile } from './files/input.js';
import { Progress } from './files/progress.js';
import { onInterruption } from './signals.js';
import { UsageError } from './usage.js';

export interface ConvertVerbOptions {
  readonly to: Layer;
  /** A file with the domain's configuration, as libxl's JSON. */
  readonly config?: string;
}

/** What a walk found out before anything is written. */
interface Facts {
  readonly from: Layer;
  /** The octet after END or the last checkpoint. */
  readonly end: number;
  readonly xlEnd: number;
}

export async function convertVerb(path: string, out: string, options: ConvertVerbOptions): Promise<ExitCode> {
  const interruption = onInterruption();
  const input = await InputFile.open(path);
  const progress = new Progress('convert', input.size);
  try {
    const check = (position: number): void => {
      interruption.signal.throwIfAborted();
      progress.at(position);
    };
    const facts = await examine(input, options.to, check);
    const xlHeader = await headerOfXl(facts.from, options);
    const sink = await FileSink.create(out);
    try {
      const writer = new ImageWriter(input, sink, () => check(sink.bytes));
      await writer.octets(xlHeader);
      await writeLayers(input, writer, facts, options.to);
      await sink.commit();
      progress.end();
      process.stderr.write(`${out}: ${facts.from} to ${options.to}, ${formatBytes(sink.bytes)}\n`);
    } catch (error) {
      await sink.discard();
      throw error;
    }
    return ExitCode.OK;
  } finally {
    progress.end();
    await input.close();
    interruption.dispose();
  }
}

async function examine(input: InputFile, to: Layer, onPause: (position: number) => void): Promise<Facts> {
  const { path } = input;
  if (input.size === null) {
    throw new UsageError(`${path} is no regular file: a stream is converted in two walks through it`);
  }
  let xlEnd = 0;
  let emulators = 0;
  let bad = 0;
  const judge = new Judge(({ severity, rule }) => {
    bad += (severity === 'error' || severity === 'unreadable') && rule !== 'trailing' ? 1 : 0;
  });
  const watch: StreamVisitor = {
    xl: (_header, end) => {
      xlEnd = end;
    },
    record: ({ layer, type }) => {
      emulators += layer === 'libxl' && isEmulatorRecord(type) ? 1 : 0;
    },
  };
  const { result, length } = await input.walk(new StreamWalker(tee(watch, judge)).walk(), { onPause });
  judge.ended(result, length);
  const from = result.outermost;
  if (bad > 0 || from === null) {
    const hint =
      result.checkpoint === null ? '' : '; romulus recover makes an image of its last complete checkpoint';
    throw new UsageError(
      `${path} is ${result.backChannel ? "COLO's back channel" : 'unsound'} (see romulus verify)${hint}`,
    );
  }
  if (from === to) {
    throw new UsageError(`${path} is in the layers of ${to} already`);
  }
  if (to === 'libxc' && emulators > 0) {
    throw new UsageError(
      `${path} has ${emulators} records of emulators, which a bare libxc stream cannot hold`,
    );
  }
  return { from, end: result.offset, xlEnd };
}

async function headerOfXl(from: Layer, { to, config }: ConvertVerbOptions): Promise<Uint8Array> {
  if (to !== 'xl') {
    return new Uint8Array(0);
  }
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

async function writeLayers(input: InputFile, writer: ImageWriter, facts: Facts, to: Layer): Promise<void> {
  const { from, end, xlEnd } = facts;
  if (from !== 'libxc' && to !== 'libxc') {
    await writer.copy({ offset: xlEnd, length: end - xlEnd });
    return;
  }
  const rewriter = new Rewriter(to !== 'libxc');
  await input.walk(new StreamWalker(rewriter).walk(), {
    end,
    onPause: async () => rewriter.flush(writer),
  });
  await rewriter.flush(writer);
}

/** Runs of libxc in the file, with (outwards) libxl's framing between. */
class Rewriter implements StreamVisitor {
  readonly #outwards: boolean;
  #jobs: (Span | Uint8Array)[] = [];

  constructor(outwards: boolean) {
    this.#outwards = outwards;
  }

  libxc(_headers: unknown, offset: number): void {
    if (this.#outwards) {
      this.#jobs.push(concatenate([encodeLibxlHeader(), encodeRecord(LibxlRecordType.LIBXC_CONTEXT)]));
    }
    this.#copy({ offset, length: 40 });
  }

  record({ layer, type, offset, length }: WalkedRecord): void {
    if (layer !== 'libxc') {
      return;
    }
    this.#copy({ offset, length: recordSpan(length) });
    if (this.#outwards && type === RecordType.CHECKPOINT) {
      this.#jobs.push(encodeRecord(LibxlRecordType.CHECKPOINT_END));
    } else if (this.#outwards && type === RecordType.END) {
      this.#jobs.push(encodeRecord(LibxlRecordType.END));
    }
  }

  async flush(writer: ImageWriter): Promise<void> {
    const jobs = this.#jobs;
    this.#jobs = [];
    for (const job of jobs) {
      await (job instanceof Uint8Array ? writer.octets(job) : writer.copy(job));
    }
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
