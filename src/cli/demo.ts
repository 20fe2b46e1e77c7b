// romulus demo

import { embeddedMachine, qemuMachine } from './demo/machine.js';
import type { DemoReport } from './demo/measure.js';
import { runDemo } from './demo/run.js';
import { Screen } from './demo/screen.js';
import { ExitCode, UsageError } from './exit-codes.js';
import { interruptible } from './signals.js';

export interface DemoVerbOptions {
  readonly interval: number;
  readonly memory?: string;
  readonly dirty: number;
  readonly checkpoints: number;
  readonly killAt?: number;
  readonly qemu?: boolean;
  readonly json?: boolean;
}

/** @throws UsageError; as runDemo() */
export async function demoVerb(options: DemoVerbOptions): Promise<ExitCode> {
  const last = options.checkpoints - 1;
  // Somewhere in the last half, so that no two demos show the same moment.
  const killAt = options.killAt ?? last - Math.floor((Math.random() * options.checkpoints) / 2);
  if (killAt > last) {
    throw new UsageError(
      `--kill-at ${killAt} is past the end of the run: with --checkpoints ${options.checkpoints} the last epoch is ${last}`,
    );
  }
  return interruptible(async (signal) => {
    // The report alone on standard output's last line: people read what happens on standard error then.
    const screen = new Screen(options.json === true ? process.stderr : process.stdout);
    const { memory, dirty: dirtyPages, interval: intervalMs } = options;
    const machine =
      options.qemu === true
        ? await qemuMachine({ memory: memory ?? '128MiB', dirtyPages }, signal)
        : embeddedMachine({ memory: memory ?? '64MiB', dirtyPages });
    const report = await runDemo({ intervalMs, machine, killAt }, screen, signal);
    for (const line of inWords(report)) screen.say(line);
    if (options.json === true) process.stdout.write(`${JSON.stringify(report)}\n`);
    return report.ok ? ExitCode.OK : ExitCode.FAILED;
  });
}

/** The report for people. */
function inWords(report: DemoReport): string[] {
  const { pauseMs, tickCommitted, tickResumed, tickHandedOver, tickGoneOn } = report;
  return [
    '',
    `${report.epochsCommitted} checkpoints were committed; the machine stood still for ${pauseMs.p50} ms each (median), ` +
      `${pauseMs.p99} ms at the most (99th percentile).`,
    `Failover: alpha's death was noticed after ${report.detectMs} ms, and the machine ran on beta ${report.takeoverMs} ms later.`,
    `It had printed tick ${tickCommitted} at the last committed checkpoint and ${wentOn(tickCommitted, tickResumed)}`,
    `Re-protection: ${report.reprotectMs} ms after alpha was started again it held a checkpoint of the machine; nobody typed a command.`,
    `Switchover: ${report.switchoverMs} ms after the request the machine ran on alpha again.`,
    `It had printed tick ${tickHandedOver} when it was handed over and ${wentOn(tickHandedOver, tickGoneOn)}`,
    report.badPages === 0
      ? 'Its check of its own memory found no wrong page.'
      : `Its check of its own memory found ${report.badPages} WRONG pages.`,
    report.outputBeforeAck === 0
      ? 'The outside saw no octet before the checkpoint that covers it was safe on the other host.'
      : `The outside saw ${report.outputBeforeAck} octets TOO EARLY: before their checkpoint was safe on the other host.`,
    report.ok ? 'ok' : 'NOT OK',
  ];
}

function wentOn(before: number, after: number): string {
  const how = after === before + 1 ? 'nothing lost, nothing twice.' : 'THAT IS WRONG.';
  return `went on with tick ${after}: ${how}`;
}
