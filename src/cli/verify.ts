// romulus verify: holds a stream file to the rules of the specifications, and says of each that is broken where, in
// which record, and which. No rule speaks of what is in a page, so pages are not read. Exit code 0: sound; 1: unsound; 2: nothing that can be read as a stream.

import { Judge, lastCheckpoint } from '../stream/examine/judge.js';
import { type Finding, RULES, type Severity } from '../stream/examine/rules.js';
import type { WalkEnd } from '../stream/examine/walk.js';
import { ExitCode } from './exit-codes.js';
import { printWalk } from './files/output.js';

export interface VerifyVerbOptions {
  readonly json?: boolean;
}

/** Findings that are printed; the others are counted. */
const FINDINGS_PRINTED_MAX = 10_000;

export type Verdict = 'sound' | 'unsound' | 'unreadable';

export function verifyVerb(
  path: string,
  options: VerifyVerbOptions,
  out: NodeJS.WritableStream = process.stdout,
): Promise<ExitCode> {
  const json = options.json === true;
  return printWalk('verify', path, out, (output, name) => {
    let printed = 0;
    if (json) output.write(`{"file":${JSON.stringify(path)},"findings":[`);
    const judge = new Judge((finding) => {
      if (printed < FINDINGS_PRINTED_MAX) {
        const comma = printed === 0 ? '' : ',';
        output.write(json ? `${comma}\n${JSON.stringify(finding)}` : `${lineOf(finding)}\n`);
      }
      printed += 1;
    });
    return {
      visitor: judge,
      end: (result, length) => {
        judge.ended(result, length);
        const verdict = verdictOf(judge);
        if (json) {
          output.line(`\n],${JSON.stringify(summary(verdict, judge, result, length)).slice(1)}`);
        } else {
          const more = printed - FINDINGS_PRINTED_MAX;
          if (more > 0) output.line(`… and ${more} more`);
          output.line(`${name}: ${inWords(verdict, judge, result)}`);
        }
        return { sound: ExitCode.OK, unsound: ExitCode.FAILED, unreadable: ExitCode.USAGE }[verdict];
      },
    };
  });
}

function verdictOf(judge: Judge): Verdict {
  if (judge.count('unreadable') > 0) return 'unreadable';
  return judge.count('error') > 0 ? 'unsound' : 'sound';
}

function summary(verdict: Verdict, judge: Judge, end: WalkEnd, bytes: number) {
  return {
    verdict,
    bytes,
    errors: judge.count('error'),
    warnings: judge.count('warning'),
    notes: judge.count('note'),
    wrapper: end.wrapper,
    outermost: end.outermost,
    backChannel: end.backChannel,
    end: end.kind,
    checkpoints: end.checkpoint?.number ?? 0,
    lastCheckpoint: end.checkpoint,
  };
}

function inWords(verdict: Verdict, judge: Judge, end: WalkEnd): string {
  const counted = (['error', 'warning', 'note'] satisfies Severity[])
    .map((severity) => [judge.count(severity), severity] as const)
    .filter(([count]) => count > 0)
    .map(([count, severity]) => `${count} ${severity}${count === 1 ? '' : 's'}`);
  const details = counted.length === 0 ? '' : ` (${counted.join(', ')})`;
  const checkpoints = end.checkpoint === null ? '' : `; ${lastCheckpoint(end)}`;
  const where = end.wrapper === null ? '' : `; the stream lies in a file of ${end.wrapper}`;
  return `${verdict}${details}${checkpoints}${where}`;
}

function lineOf({ severity, offset, record, rule, message }: Finding): string {
  const where = record === null ? '' : ` ${record}`;
  return `${severity}: at ${offset}${where}: ${message} [${rule}] ${RULES[rule].says}`;
}
