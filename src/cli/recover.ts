// romulus recover: makes of a checkpointed stream, complete or cut anywhere, a plain image of its last complete
// checkpoint, in the layers that the stream has.
//
//   walk 1: where does the last complete checkpoint end?
//   walk 2, up to there: which is the latest page of each pfn, which the latest record of each kind?
//   write: headers, records, pages gathered by pfn, END

import { StreamError } from '../stream/error.js';
import { Judge } from '../stream/examine/judge.js';
import { MergedState } from '../stream/examine/merge.js';
import type { Finding, RuleId } from '../stream/examine/rules.js';
import { tee } from '../stream/examine/visitor.js';
import type { WalkEnd } from '../stream/examine/walk.js';
import { RecordType } from '../stream/format.js';
import { LibxlRecordType } from '../stream/libxl.js';
import { encodeRecord } from '../stream/writer.js';
import { formatBytes } from './text.js';
import { ExitCode } from './exit-codes.js';
import { ImageOutput } from './files/image-output.js';
import { type ImageMaker, ImageMeasure, ImageWriter } from './files/image-writer.js';
import { InputFile } from './files/input.js';
import { LeftOut } from './files/left-out.js';
import { Progress } from './files/progress.js';
import { onInterruption } from './signals.js';
import { UsageError } from './usage.js';

/** What may be wrong with a stream and does its domain no harm. */
const HARMLESS: ReadonlySet<RuleId> = new Set<RuleId>([
  'padding',
  'trailing',
  'end-in-checkpoint',
  'libxl.options',
  'libxl.direction',
  'libxc.options',
  'libxc.reserved',
  'page-data.reserved',
  'page-data.pfn-reserved',
  'pv-info.reserved',
  'vcpu.reserved',
  'tsc-info.reserved',
  'hvm-params.reserved',
]);

/** @param report where it says what it has written */
export async function recoverVerb(
  path: string,
  out: string,
  report: NodeJS.WritableStream = process.stderr,
): Promise<ExitCode> {
  const interruption = onInterruption();
  try {
    await recover(path, await ImageOutput.find(out), report, interruption.signal);
    return ExitCode.OK;
  } finally {
    interruption.dispose();
  }
}

async function recover(
  path: string,
  output: ImageOutput,
  report: NodeJS.WritableStream,
  signal: AbortSignal,
): Promise<void> {
  const input = await InputFile.open(path, { twice: true, signal });
  const progress = new Progress('recover', input.size);
  try {
    const onPause = (position: number): void => {
      signal.throwIfAborted();
      progress.at(position);
    };
    const end = await lastWhole(input, onPause);
    const state = new MergedState();
    const firstError = errorWatch();
    await input.walk(tee(state, firstError.judge), { end: end.offset, onPause });
    firstError.check(input.path);

    const measure = async (): Promise<number> => {
      const image = new ImageMeasure();
      await writeImage(image, state);
      return image.bytes;
    };
    const written = await output.write({ signal, report, input: input.place, measure }, async (sink) => {
      const pages = await writeImage(new ImageWriter(input, sink, () => onPause(sink.bytes)), state);
      return `${pages} pages, ${formatBytes(sink.bytes)}`;
    });
    progress.end();
    const what = end.checkpoint === null ? 'the whole stream' : `checkpoint ${end.checkpoint}`;
    report.write(`${output.name}: ${what}, ${written}\n`);
    end.leftOut.report(report);
  } finally {
    progress.end();
    await input.close();
  }
}

async function writeImage(writer: ImageMaker, state: MergedState): Promise<number> {
  await writer.copyAll(state.outerHeaders);
  const layered = state.outerHeaders.length > 0;
  if (layered) {
    await writer.octets(encodeRecord(LibxlRecordType.LIBXC_CONTEXT));
  }
  await writer.copy(state.libxcHeaders);
  await writer.copyAll(state.recordsBeforePages());
  const pages = await writer.pages(state.pages);
  await writer.copyAll(state.recordsAfterPages());
  await writer.octets(encodeRecord(RecordType.END));
  if (layered) {
    await writer.copyAll(state.emulatorRecords());
    await writer.octets(encodeRecord(LibxlRecordType.END));
  }
  return pages;
}

/** Where the last complete checkpoint ends; of a stream without checkpoints, where it ends. */
async function lastWhole(
  input: InputFile,
  onPause: (position: number) => void,
): Promise<{ offset: number; checkpoint: number | null; leftOut: LeftOut }> {
  // The last finding of a walk that stopped is why it did.
  let last: Finding | undefined;
  const judge = new Judge((finding) => {
    last = finding;
  });
  const leftOut = new LeftOut();
  const { result } = await input.walk(tee(leftOut, judge), { onPause });
  const { checkpoint, streamEnd } = result;
  if (result.backChannel) {
    throw new UsageError(`${input.path} is COLO's back channel: no domain is in it`);
  }
  if (checkpoint !== null) {
    return { offset: checkpoint.end, checkpoint: checkpoint.number, leftOut };
  }
  if (streamEnd !== null) {
    return { offset: streamEnd, checkpoint: null, leftOut };
  }
  throw nothingWhole(input.path, result, last);
}

function nothingWhole(path: string, end: WalkEnd, finding: Finding | undefined): StreamError {
  if (finding !== undefined && end.kind === 'stopped') {
    return new StreamError('NOTHING_WHOLE', `${path}: ${finding.message}`, {
      offset: finding.offset,
      rule: finding.rule,
    });
  }
  return new StreamError('NOTHING_WHOLE', `${path} holds no complete checkpoint and no END`, {
    offset: end.offset,
    where: end.where,
  });
}

/** A judge that remembers the first thing that a domain must not be made of. */
function errorWatch(): { judge: Judge; check: (path: string) => void } {
  let first: Finding | null = null;
  const judge = new Judge((finding) => {
    const bad = finding.severity === 'error' || finding.severity === 'unreadable';
    if (first === null && bad && !HARMLESS.has(finding.rule)) {
      first = finding;
    }
  });
  return {
    judge,
    check: (path) => {
      if (first !== null) {
        const { rule, record, offset, message }: Finding = first;
        throw new StreamError('BAD_RECORD', `${path}: ${record ?? 'stream'} at ${offset}: ${message}`, {
          offset,
          rule,
        });
      }
    },
  };
}
