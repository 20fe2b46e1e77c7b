// romulus recover: makes of a checkpointed stream, complete or cut anywhere, a plain image of its last complete
// checkpoint, in the layers that the stream has.
//
//   walk 1: where does the last complete checkpoint end?
//   walk 2, up to there: which is the latest page of each pfn, which the latest record of each kind?
//   write: headers, records, pages gathered by pfn, END

import { StreamError } from '../stream/error.js';
import { Judge } from '../stream/examine/judge.js';
import { MergedState, type Span } from '../stream/examine/merge.js';
import type { Finding, RuleId } from '../stream/examine/rules.js';
import { tee } from '../stream/examine/visitor.js';
import type { StreamVisitor, WalkEnd } from '../stream/examine/walk.js';
import { RecordType } from '../stream/format.js';
import { LibxlRecordType } from '../stream/libxl.js';
import { encodeRecord } from '../stream/writer.js';
import { type ExitCode, UsageError } from './exit-codes.js';
import type { ImageMaker } from './files/image-writer.js';
import type { InputFile } from './files/input.js';
import { type OnPause, rewrite } from './files/rewrite.js';

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
export function recoverVerb(
  path: string,
  out: string,
  report: NodeJS.WritableStream = process.stderr,
): Promise<ExitCode> {
  return rewrite('recover', { path, out, report }, async (input, onPause, leftOut) => {
    const { offset, checkpoint } = await lastWhole(input, onPause, leftOut);
    const state = new MergedState();
    const firstError = errorWatch();
    await input.walk(tee(state, firstError.judge), { end: offset, onPause });
    firstError.check(input.path);
    const what = checkpoint === null ? 'the whole stream' : `checkpoint ${checkpoint}`;
    return async (maker) => `${what}, ${await writeImage(maker, state)} pages`;
  });
}

async function copyAll(writer: ImageMaker, spans: readonly Span[]): Promise<void> {
  for (const span of spans) await writer.copy(span);
}

async function writeImage(writer: ImageMaker, state: MergedState): Promise<number> {
  await copyAll(writer, state.outerHeaders);
  const layered = state.outerHeaders.length > 0;
  if (layered) await writer.octets(encodeRecord(LibxlRecordType.LIBXC_CONTEXT));
  await writer.copy(state.libxcHeaders);
  await copyAll(writer, state.recordsBeforePages());
  const pages = await writer.pages(state.pages);
  await copyAll(writer, state.recordsAfterPages());
  await writer.octets(encodeRecord(RecordType.END));
  if (layered) {
    await copyAll(writer, state.emulatorRecords());
    await writer.octets(encodeRecord(LibxlRecordType.END));
  }
  return pages;
}

/** Where the last complete checkpoint ends; of a stream without checkpoints, where it ends. */
async function lastWhole(
  input: InputFile,
  onPause: OnPause,
  leftOut: StreamVisitor,
): Promise<{ offset: number; checkpoint: number | null }> {
  // The last finding of a walk that stopped is why it did.
  let last: Finding | undefined;
  const judge = new Judge((finding) => {
    last = finding;
  });
  const { result } = await input.walk(tee(leftOut, judge), { onPause });
  const { checkpoint, streamEnd } = result;
  if (result.backChannel) throw new UsageError(`${input.path} is COLO's back channel: no domain is in it`);
  if (checkpoint !== null) return { offset: checkpoint.end, checkpoint: checkpoint.number };
  if (streamEnd !== null) return { offset: streamEnd, checkpoint: null };
  throw nothingWhole(input.path, result, last);
}

function nothingWhole(path: string, end: WalkEnd, finding: Finding | undefined): StreamError {
  if (finding !== undefined && end.kind === 'stopped') {
    const { offset, rule, message } = finding;
    return new StreamError('NOTHING_WHOLE', `${path}: ${message}`, { offset, rule });
  }
  const { offset, where } = end;
  const message = `${path} holds no complete checkpoint and no END`;
  return new StreamError('NOTHING_WHOLE', message, { offset, where });
}

/** A judge that remembers the first thing that a domain must not be made of. */
function errorWatch(): { judge: Judge; check: (path: string) => void } {
  let first: Finding | null = null;
  const judge = new Judge((finding) => {
    const bad = finding.severity === 'error' || finding.severity === 'unreadable';
    if (bad && !HARMLESS.has(finding.rule)) first ??= finding;
  });
  return {
    judge,
    check: (path) => {
      if (first === null) return;
      const { rule, record, offset, message }: Finding = first;
      const what = `${path}: ${record ?? 'stream'} at ${offset}: ${message}`;
      throw new StreamError('BAD_RECORD', what, { offset, rule });
    },
  };
}
