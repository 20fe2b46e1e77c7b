// romulus status, start, switchover, test-failover, evacuate: what an operator asks of the agent of this host, through its socket.

import http from 'node:http';
import { loadCluster } from '../config/cluster.js';
import { codeOf, asError } from '../errors.js';
import type { DomainStatus, Synchronisation, TrialReport } from '../report/reports.js';
import { PAGE_SIZE } from '../stream/format.js';
import { ExitCode, UsageError } from './exit-codes.js';
import { printable } from './text.js';

export interface ControlVerbOptions {
  readonly config: string;
  readonly host?: string;
  readonly json?: boolean;
}

/** Of the agent: {"ok": true, …}, or {"ok": false, "code", "message"}. */
export type Answer = Readonly<Record<string, unknown>> & { readonly ok: boolean };

const CONNECT_HINT = 'is its agent running, by this configuration?';

export async function statusVerb(options: ControlVerbOptions): Promise<ExitCode> {
  return asked(options, 'GET', '/v1/domains', undefined, (answer) => {
    const domains = answer['domains'] as readonly DomainStatus[];
    return [
      row('DOMAIN', 'HERE', 'LINK', 'REGISTER', 'EPOCH'),
      ...domains.map(({ domain, phase, role, link, register, epochAcknowledged, synchronisation }) =>
        row(
          domain,
          phase === 'owner' || phase === 'standby' ? `${phase} (${role})` : (phase ?? role),
          synchronisation ? `${link} ${percentOf(synchronisation)}` : link,
          register
            ? `${register.mode} ${register.owner}${register.standby ? ` + ${register.standby}` : ''}`
            : '-',
          String(epochAcknowledged),
        ),
      ),
    ].join('\n');
  });
}

/** Of all octets, as far as it is known how many they are: disks come first, and memory is not looked at before. */
function percentOf({ pagesSent, pagesTotal, disks }: Synchronisation): string {
  const sum = (of: readonly number[]): number => of.reduce((total, each) => total + each, 0);
  const done = pagesSent * PAGE_SIZE + sum(disks.map(({ doneBytes }) => doneBytes));
  const total = pagesTotal * PAGE_SIZE + sum(disks.map(({ totalBytes }) => totalBytes));
  return `${Math.floor((100 * done) / Math.max(1, total))} %`;
}

/** @throws UsageError if it is not said that no other host runs it */
export async function startVerb(
  domain: string,
  { force, ...options }: ControlVerbOptions & { readonly force?: boolean },
): Promise<ExitCode> {
  if (force !== true) {
    throw new UsageError(
      `${domain} is started here whatever the register says: if another host runs it, or holds its last checkpoint, there will ` +
        'be two of it, or what it did since is lost. Whoever knows that this is not so says --force',
    );
  }
  return asked(
    options,
    'POST',
    `/v1/domains/${encodeURIComponent(domain)}/start`,
    {},
    () => `${domain} starts here`,
  );
}

export async function switchoverVerb(
  domain: string,
  { to, ...options }: ControlVerbOptions & { readonly to?: string },
): Promise<ExitCode> {
  const path = `/v1/domains/${encodeURIComponent(domain)}/switchover`;
  return asked(
    options,
    'POST',
    path,
    to === undefined ? {} : { to },
    (answer) => `${domain}: ${told(answer)}`,
  );
}

/** Who ends us ends the trial. */
export async function testFailoverVerb(
  domain: string,
  { seconds, ...options }: ControlVerbOptions & { readonly seconds?: number },
): Promise<ExitCode> {
  const path = `/v1/domains/${encodeURIComponent(domain)}/test-failover`;
  return asked(options, 'POST', path, seconds === undefined ? {} : { seconds }, (answer) => {
    const { lives, why, epoch, host, seconds: ran, console: said } = answer as unknown as TrialReport;
    const verdict = lives ? 'would live' : 'would not live';
    const told = `${domain} ${verdict} on ${host}, from epoch ${epoch}, as ${ran} s have shown: ${why}`;
    const lines = printable(said).trimEnd();
    return lines === '' ? told : `${told}\nThe last that it said:\n${lines}`;
  });
}

export async function evacuateVerb(options: ControlVerbOptions): Promise<ExitCode> {
  return asked(options, 'POST', '/v1/evacuate', {}, (answer) => {
    const domains = answer['domains'] as readonly Answer[];
    if (domains.length === 0) return 'nothing runs here';
    return domains.map((each) => `${String(each['domain'])}: ${told(each)}`).join('\n');
  });
}

async function asked(
  { config: file, host, json }: ControlVerbOptions,
  method: string,
  path: string,
  body: object | undefined,
  say: (answer: Answer) => string,
): Promise<ExitCode> {
  const { control } = await loadCluster(file, host);
  const answer = await ask(control, method, path, body);
  const text = json === true ? JSON.stringify(answer) : answer.ok ? say(answer) : told(answer);
  process.stdout.write(`${text}\n`);
  const each = answer['domains'];
  const ok =
    answer.ok &&
    answer['lives'] !== false &&
    !(Array.isArray(each) && each.some((one: { ok?: boolean }) => one.ok === false));
  return ok ? ExitCode.OK : ExitCode.FAILED;
}

/** @throws UsageError if nobody listens there; SyntaxError, or Node's system error, if the answer is none */
export function ask(
  socketPath: string,
  method: string,
  path: string,
  body: object | undefined,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath, method, path }, (response) => {
      const pieces: Buffer[] = [];
      response.on('data', (piece: Buffer) => pieces.push(piece));
      response.on('end', () => {
        try {
          resolve(JSON.parse(Buffer.concat(pieces).toString('utf8')) as Answer);
        } catch (error) {
          reject(asError(error));
        }
      });
      response.on('error', reject);
    });
    request.on('error', (error) => {
      reject(
        new UsageError(`the agent does not answer at ${socketPath} (${codeOf(error)}): ${CONNECT_HINT}`),
      );
    });
    request.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

function told({ ok, code, message, to }: Answer): string {
  if (!ok) return `refused, ${String(code)}: ${String(message)}`;
  return `runs on ${String(to)} now`;
}

function row(...cells: readonly string[]): string {
  const widths = [20, 20, 12, 28, 8];
  return cells
    .map((cell, index) => cell.padEnd(widths[index] ?? 0))
    .join('  ')
    .trimEnd();
}
