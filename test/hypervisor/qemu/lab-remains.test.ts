// Nothing of a lab stays when the program that made it is ended, whenever and however: no process, namespace, network
// interface, mount or file. (Sockets go with the processes and the namespaces that they are in.)

import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { until } from '../../support/until.js';
import { allProcesses, processesWith } from '../../support/processes.js';
import { ensureGuest, GUEST_TIMEOUT_MS } from '../../support/qemu.js';
import { needLab } from './lab.js';

const PROGRAM = fileURLToPath(new URL('./lab-interrupted.js', import.meta.url));
const NAMESPACES = ['net', 'pid', 'mnt'];
const AT_WORK_TIMEOUT_MS = 60_000;
const REMAINS_TIMEOUT_MS = 10_000;

/** Processes with this in their environment: what a program starts inherits it. */
function marked(mark: string): number[] {
  return processesWith(mark, 'environ');
}

/** "net:[…]": the namespaces that these processes are in. */
function namespacesOf(pids: readonly number[]): Set<string> {
  const found = new Set<string>();
  for (const pid of pids) {
    for (const kind of NAMESPACES) {
      try {
        found.add(readlinkSync(`/proc/${pid}/ns/${kind}`));
      } catch {
        // It has just ended.
      }
    }
  }
  return found;
}

/** What there is on this machine that a lab could leave behind; `temporary`: its directory for temporary files. */
function inventory(temporary: string): Set<string> {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const shared = readdirSync('/dev/shm').filter((name) => name.startsWith('romulus-'));
  const named = readdirSync('/run').filter((name) => name === 'netns');
  return new Set([
    ...mounts,
    ...shared,
    ...named,
    ...readdirSync(temporary),
    ...readdirSync('/sys/class/net'),
  ]);
}

function additions(after: Set<string>, before: Set<string>): string[] {
  return [...after].filter((item) => !before.has(item));
}

describe('qemu: what is left of three hosts', function () {
  let temporary = '';
  beforeEach(() => (temporary = mkdtempSync(join(tmpdir(), 'romulus-remains-'))));
  afterEach(() => rmSync(temporary, { recursive: true }));
  before(async function () {
    await needLab(this);
    this.timeout(GUEST_TIMEOUT_MS);
    if (!(await ensureGuest())) this.skip();
  });

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGKILL'] as const) {
    for (const moment of ['while they are made', 'at work'] as const) {
      it(`nothing: ${signal}, ${moment}`, async function () {
        this.timeout(AT_WORK_TIMEOUT_MS + REMAINS_TIMEOUT_MS);
        const mark = `ROMULUS_TEST_MARK=${process.pid}-${signal}-${moment.length}`;
        const [name = '', value = ''] = mark.split('=');
        const before = inventory(temporary);
        const ours = namespacesOf([process.pid]);
        const program = spawn(process.execPath, [PROGRAM], {
          stdio: ['ignore', 'pipe', 'inherit'],
          env: { ...process.env, [name]: value, TMPDIR: temporary },
        });
        const closed = once(program, 'close');
        let said = '';
        program.stdout.on('data', (text: Buffer) => (said += text.toString()));
        let theirs = new Set<string>();
        if (moment === 'at work') {
          await until('at work', () => said.includes('at work'), AT_WORK_TIMEOUT_MS);
          // The program, what holds the lab, two agents with their QEMUs at least.
          const processes = marked(mark);
          expect(processes.length).to.be.at.least(8);
          theirs = namespacesOf(processes);
          for (const namespace of ours) theirs.delete(namespace);
          expect(theirs.size).to.be.at.least(3 + NAMESPACES.length);
          await sleep(Math.random() * 200);
        } else {
          await sleep(200 + Math.random() * 1500);
          expect(marked(mark)).to.not.deep.equal([]);
        }
        program.kill(signal);
        await closed;
        const remains = (): (string | number)[] => [
          ...marked(mark),
          ...[...namespacesOf(allProcesses())].filter((namespace) => theirs.has(namespace)),
          ...additions(inventory(temporary), before),
        ];
        await until('an end', () => remains().length === 0, REMAINS_TIMEOUT_MS).catch((late: unknown) => {
          expect(remains(), 'remains').to.deep.equal([]);
          throw late;
        });
      });
    }
  }
});
