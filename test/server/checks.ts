// What the server says of itself after each takeover. What it reads, it reads from its disk.

import type { Acknowledged, RemoteShell } from './clients.js';

/** For one command, on a machine that has other things to do. */
const COMMAND_MS = 240_000;

/** @throws Error with what is lost, doubled or spoilt */
export async function checkServer(shell: RemoteShell, sql: Acknowledged, redis: Acknowledged): Promise<void> {
  const run = (command: string) => shell.run(command, COMMAND_MS);
  const acknowledged = [sql.count, redis.count] as const;
  await run('sync; echo 3 > /proc/sys/vm/drop_caches');
  await run('cd /; su postgres -c "$(echo /usr/lib/postgresql/*/bin/pg_amcheck) --heapallindexed bench"');
  await checkNumbers(run, ...acknowledged);
  await checkBooks(run);
  const wrong = 'EXT4-fs (error|warning)|I/O error|BUG|Oops|blocked for more';
  const complaints = await run(`dmesg | grep -E "${wrong}" || true`);
  if (complaints !== '') throw new Error(`the server’s kernel complains: ${complaints}`);
  sql.check();
  redis.check();
}

type Run = (command: string) => Promise<string>;

/** None that was acknowledged is lost, and none is there twice. */
async function checkNumbers(run: Run, sql: number, redis: number): Promise<void> {
  const rows = await run(queried('SELECT count(*), count(DISTINCT number), max(number) FROM acknowledged'));
  sameOrMore('rows in SQL', rows.trim().split('|'), sql);
  const entries = await run(
    'cd /tmp; redis-cli lrange acknowledged 0 -1 > list; wc -l < list; sort -nu list | wc -l; tail -n 1 list',
  );
  sameOrMore('entries in Redis', entries.trim().split('\n'), redis);
}

/** Each transaction of pgbench books one amount four times. */
async function checkBooks(run: Run): Promise<void> {
  const sums = await run(
    queried(
      'SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches), ' +
        '(SELECT sum(tbalance) FROM pgbench_tellers), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)',
    ),
  );
  if (new Set(sums.trim().split('|')).size !== 1) throw new Error(`the books do not balance: ${sums}`);
}

function queried(query: string): string {
  return `psql -U postgres -At bench -c "${query}"`;
}

/** All are one number, which is what was acknowledged, or that and what was about to be. */
function sameOrMore(what: string, words: readonly string[], acknowledged: number): void {
  const numbers = words.map(Number);
  if (new Set(numbers).size === 1 && numbers.every((number) => number >= acknowledged)) return;
  throw new Error(`${what}: ${words.join(', ')} (all, different, last); ${acknowledged} were acknowledged`);
}
