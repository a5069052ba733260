"""honker's queue: enqueue, claim_batch, ack_batch, each in one transaction on its writer connection."""

import honker

import drive


class Peer:
    def open(self, directory, case):
        self.db = honker.open(f"{directory}/honker.db")
        self.queue = self.db.queue("work")
        # honker sets NORMAL on its one writer connection and has no option for it, and the pragma is refused within a
        # transaction: so the transaction that honker opened is ended first, and another is left for honker to commit.
        with self.db.transaction() as tx:
            tx.execute("COMMIT")
            tx.execute(f"PRAGMA synchronous={case.sync.upper()}")
            tx.execute("BEGIN IMMEDIATE")

    def send(self, _worker, bodies):
        if len(bodies) == 1:
            self.queue.enqueue(bodies[0])
            return
        with self.db.transaction() as tx:
            for text in bodies:
                self.queue.enqueue(text, tx=tx)

    def receive(self, worker, maximum):
        return [(job.id, job.payload) for job in self.queue.claim_batch(f"worker-{worker}", maximum)]

    def delete(self, worker, receipts):
        acked = self.queue.ack_batch(receipts, f"worker-{worker}")
        if acked != len(receipts):
            raise RuntimeError(f"{acked} of {len(receipts)} claims were still valid")

    def left(self):
        return self.db.query("SELECT count(*) AS n FROM _honker_live")[0]["n"]

    def settings(self):
        with self.db.transaction() as tx:
            journal = tx.query("PRAGMA journal_mode")[0]["journal_mode"]
            synchronous = tx.query("PRAGMA synchronous")[0]["synchronous"]
        return drive.settings(journal, synchronous)


drive.main(Peer())
